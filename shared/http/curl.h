// libcurl's handles, owned by their types, and what holds for every request that Penstock makes.
// Header only: whoever includes it links libcurl.
#pragma once

#include <curl/curl.h>

#include <memory>
#include <string>
#include <vector>

namespace penstock::curl {

struct Free {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
struct FreeMulti {
  void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
};
using Easy = std::unique_ptr<CURL, Free>;
using Url = std::unique_ptr<CURLU, Free>;
using Headers = std::unique_ptr<curl_slist, Free>;
using Multi = std::unique_ptr<CURLM, FreeMulti>;

// Adds lines "Name: value". False: no memory was left.
inline bool append(Headers& headers, const std::vector<std::string>& lines) {
  for (const std::string& line : lines) {
    curl_slist* const longer = curl_slist_append(headers.get(), line.c_str());
    if (longer == nullptr) {
      return false;
    }
    static_cast<void>(headers.release());  // `longer` has it
    headers.reset(longer);
  }
  return true;
}

// Of a handle, which keeps them: HTTP alone, no proxy and no password of the environment, no
// redirects. A request that is given up does not wait for its name to be resolved. transfer_of()
// gives `transfer` back.
inline void set_common_options(CURL* easy, void* transfer) {
  curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_PROXY, "");
  curl_easy_setopt(easy, CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
}

inline void set_url(CURL* easy, const std::string& url) {
  curl_easy_setopt(easy, CURLOPT_URL, url.c_str());
}

// `body` outlives the request.
inline void set_post(CURL* easy, const std::string& body) {
  curl_easy_setopt(easy, CURLOPT_POST, 1L);
  curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body.data());
  curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
}

template <class Transfer>
Transfer& transfer_of(CURL* easy) {
  Transfer* transfer = nullptr;
  curl_easy_getinfo(easy, CURLINFO_PRIVATE, &transfer);
  return *transfer;
}

// What an answer says in its head; 0: it does not.
inline long status_of(CURL* easy) {
  long status = 0;
  curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
  return status;
}
inline curl_off_t retry_after_s(CURL* easy) {
  curl_off_t seconds = 0;
  curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &seconds);
  return seconds;
}

// on_end(easy, code) for each request that has ended since the last call. It may remove that one.
template <class OnEnd>
void each_ended(CURLM* multi, const OnEnd& on_end) {
  int left = 0;
  while (const CURLMsg* const message = curl_multi_info_read(multi, &left)) {
    if (message->msg == CURLMSG_DONE) {
      on_end(message->easy_handle, message->data.result);
    }
  }
}

}  // namespace penstock::curl
