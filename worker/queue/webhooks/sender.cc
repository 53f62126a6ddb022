#include "worker/queue/webhooks/sender.h"

#include <curl/curl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <thread>

#include "shared/base/fd.h"
#include "shared/base/mutex.h"

namespace penstock::queue {
namespace {

constexpr int kPollMs = 1000;

// One POST under way.
struct Transfer {
  WebhookRequest request;
  std::string host;
  CURL* easy = nullptr;
  curl_slist* headers = nullptr;
  size_t header_bytes = 0;
  size_t body_bytes = 0;
  bool refused = false;     // an address was
  bool connecting = false;  // to one that may be

  Transfer() = default;
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;
  ~Transfer() {
    curl_slist_free_all(headers);
    curl_easy_cleanup(easy);
  }
};

// A name may have several addresses; those that may not be connected to are passed over.
curl_socket_t open_socket(void* user, curlsocktype, curl_sockaddr* address) {
  auto& transfer = *static_cast<Transfer*>(user);
  if (!transfer.request.targets->allows(transfer.host, address->addr)) {
    transfer.refused = true;
    return CURL_SOCKET_BAD;
  }
  transfer.connecting = true;
  return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

// On a connection that was kept, too.
int judge_again(void* user, char* address, char*, int, int) {
  auto& transfer = *static_cast<Transfer*>(user);
  transfer.refused = !transfer.request.targets->allows(transfer.host, address);
  transfer.connecting = !transfer.refused;
  return transfer.refused ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

// What a receiver says is of no interest, nor is more than a little of it waited for.
size_t discard(char*, size_t size, size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  transfer.body_bytes += size * count;
  return transfer.body_bytes > WebhookSender::kMaxResponseBytes ? 0 : size * count;
}

size_t count_header(char*, size_t size, size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  transfer.header_bytes += size * count;
  return transfer.header_bytes > WebhookSender::kMaxHeaderBytes ? 0 : size * count;
}

void set_up(Transfer& transfer, const WebhookSender::Patience& patience) {
  CURL* const easy = transfer.easy = curl_easy_init();
  transfer.host = host_of(transfer.request.url);
  for (const std::string& header : transfer.request.headers) {
    transfer.headers = curl_slist_append(transfer.headers, header.c_str());
  }
  curl_easy_setopt(easy, CURLOPT_PRIVATE, &transfer);
  curl_easy_setopt(easy, CURLOPT_URL, transfer.request.url.c_str());
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_PROXY, "");
  curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(easy, CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  curl_easy_setopt(easy, CURLOPT_POST, 1L);
  curl_easy_setopt(easy, CURLOPT_POSTFIELDS, transfer.request.body.data());
  curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
                   static_cast<curl_off_t>(transfer.request.body.size()));
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer.headers);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, patience.connect_ms);
  curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, patience.total_ms);
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  // Else whoever is given up while its name is resolved would be waited for, by everyone.
  curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, &transfer);
  curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, judge_again);
  curl_easy_setopt(easy, CURLOPT_PREREQDATA, &transfer);
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, count_header);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, discard);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, &transfer);
}

WebhookResponse outcome(const Transfer& transfer, CURLcode code) {
  WebhookResponse response{.id = transfer.request.id, .url = transfer.request.url};
  long status = 0;
  curl_off_t retry_after = 0;
  curl_easy_getinfo(transfer.easy, CURLINFO_RESPONSE_CODE, &status);
  curl_easy_getinfo(transfer.easy, CURLINFO_RETRY_AFTER, &retry_after);
  response.refused = transfer.refused && !transfer.connecting;
  // An answer whose body was cut off has said its status all the same.
  const bool cut =
      code == CURLE_WRITE_ERROR && transfer.body_bytes > WebhookSender::kMaxResponseBytes;
  response.status = code == CURLE_OK || cut ? static_cast<int>(status) : 0;
  response.retry_after_s = retry_after;
  response.error = code == CURLE_OK || cut ? "" : curl_easy_strerror(code);
  return response;
}

}  // namespace

class WebhookSender::Thread {
 public:
  explicit Thread(const Patience& patience)
      : patience_(patience),
        multi_(curl_multi_init()),
        event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    curl_multi_setopt(multi_, CURLMOPT_MAX_TOTAL_CONNECTIONS, kMostAtOnce);
    curl_multi_setopt(multi_, CURLMOPT_MAX_HOST_CONNECTIONS, kMostPerHost);
    thread_ = std::thread([this] { work(); });
  }
  ~Thread() {
    stopping_ = true;
    curl_multi_wakeup(multi_);
    thread_.join();
    for (auto& [easy, transfer] : transfers_) {
      curl_multi_remove_handle(multi_, easy);
    }
    transfers_.clear();
    curl_multi_cleanup(multi_);
  }

  void send(WebhookRequest request) {
    {
      const MutexLock lock(mutex_);
      inbox_.push_back(std::move(request));
    }
    curl_multi_wakeup(multi_);
  }

  int event_fd() const { return event_.get(); }

  std::vector<WebhookResponse> take() {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t n = ::read(event_.get(), &count, sizeof count);
    std::vector<WebhookResponse> done;
    const MutexLock lock(mutex_);
    done.swap(done_);
    return done;
  }

 private:
  void work() {
    while (!stopping_) {
      begin();
      int running = 0;
      curl_multi_perform(multi_, &running);
      finish();
      curl_multi_poll(multi_, nullptr, 0, kPollMs, nullptr);
    }
  }

  void begin() {
    std::vector<WebhookRequest> fresh;
    {
      const MutexLock lock(mutex_);
      fresh.swap(inbox_);
    }
    for (WebhookRequest& request : fresh) {
      auto transfer = std::make_unique<Transfer>();
      transfer->request = std::move(request);
      set_up(*transfer, patience_);
      curl_multi_add_handle(multi_, transfer->easy);
      transfers_[transfer->easy] = std::move(transfer);
    }
  }

  void finish() {
    int left = 0;
    while (const CURLMsg* const message = curl_multi_info_read(multi_, &left)) {
      if (message->msg != CURLMSG_DONE) {
        continue;
      }
      CURL* const easy = message->easy_handle;
      const CURLcode code = message->data.result;
      const auto found = transfers_.find(easy);
      WebhookResponse response = outcome(*found->second, code);
      curl_multi_remove_handle(multi_, easy);
      transfers_.erase(found);
      {
        const MutexLock lock(mutex_);
        done_.push_back(std::move(response));
      }
      constexpr uint64_t kOne = 1;
      [[maybe_unused]] const ssize_t n = ::write(event_.get(), &kOne, sizeof kOne);
    }
  }

  const Patience patience_;
  CURLM* multi_;
  Fd event_;
  Mutex mutex_;
  std::vector<WebhookRequest> inbox_ GUARDED_BY(mutex_);
  std::vector<WebhookResponse> done_ GUARDED_BY(mutex_);
  std::atomic<bool> stopping_{false};
  std::map<CURL*, std::unique_ptr<Transfer>> transfers_;  // the thread's
  std::thread thread_;
};

WebhookSender::WebhookSender(const Patience& patience)
    : thread_(std::make_unique<Thread>(patience)) {}
WebhookSender::~WebhookSender() = default;
void WebhookSender::send(WebhookRequest request) { thread_->send(std::move(request)); }
int WebhookSender::event_fd() const { return thread_->event_fd(); }
std::vector<WebhookResponse> WebhookSender::take() { return thread_->take(); }

}  // namespace penstock::queue
