#include "worker/queue/webhooks/sender.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <thread>

#include "shared/base/fd.h"
#include "shared/base/mutex.h"
#include "shared/http/curl.h"

namespace penstock::queue {
namespace {

constexpr int kPollMs = 1000;

// One POST under way.
struct Transfer {
  WebhookRequest request;
  std::string host;
  curl::Easy easy;
  curl::Headers headers;
  size_t header_bytes = 0;
  size_t body_bytes = 0;
  std::string body;
  bool refused = false;     // an address was
  bool connecting = false;  // to one that may be
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

// No more than a little of what a receiver says is waited for.
size_t take_body(char* bytes, size_t size, size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  transfer.body_bytes += size * count;
  if (transfer.body_bytes > WebhookSender::kMaxResponseBytes) {
    return 0;
  }
  if (transfer.request.wants_body) {
    transfer.body.append(bytes, size * count);
  }
  return size * count;
}

size_t count_header(char*, size_t size, size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  transfer.header_bytes += size * count;
  return transfer.header_bytes > WebhookSender::kMaxHeaderBytes ? 0 : size * count;
}

void set_up(Transfer& transfer, const WebhookSender::Patience& patience) {
  transfer.easy.reset(curl_easy_init());
  CURL* const easy = transfer.easy.get();
  transfer.host = host_of(transfer.request.url);
  curl::append(transfer.headers, transfer.request.headers);
  curl::set_common_options(easy, &transfer);
  curl::set_url(easy, transfer.request.url);
  curl::set_post(easy, transfer.request.body);
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer.headers.get());
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, patience.connect_ms);
  curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, patience.total_ms);
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, &transfer);
  curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, judge_again);
  curl_easy_setopt(easy, CURLOPT_PREREQDATA, &transfer);
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, count_header);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, &transfer);
}

WebhookResponse outcome(Transfer& transfer, CURLcode code) {
  WebhookResponse response{.id = transfer.request.id, .url = transfer.request.url};
  response.refused = transfer.refused && !transfer.connecting;
  // An answer whose body was cut off has said its status all the same.
  response.cut =
      code == CURLE_WRITE_ERROR && transfer.body_bytes > WebhookSender::kMaxResponseBytes;
  response.status =
      code == CURLE_OK || response.cut ? static_cast<int>(curl::status_of(transfer.easy.get())) : 0;
  response.retry_after_s = curl::retry_after_s(transfer.easy.get());
  response.error = code == CURLE_OK || response.cut ? "" : curl_easy_strerror(code);
  response.body = std::move(transfer.body);
  return response;
}

}  // namespace

class WebhookSender::Thread {
 public:
  explicit Thread(const Patience& patience)
      : patience_(patience),
        multi_(curl_multi_init()),
        event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    curl_multi_setopt(multi_.get(), CURLMOPT_MAX_TOTAL_CONNECTIONS, kMostAtOnce);
    curl_multi_setopt(multi_.get(), CURLMOPT_MAX_HOST_CONNECTIONS, patience.per_host);
    thread_ = std::thread([this] { work(); });
  }
  ~Thread() {
    stopping_ = true;
    curl_multi_wakeup(multi_.get());
    thread_.join();
    for (auto& [easy, transfer] : transfers_) {
      curl_multi_remove_handle(multi_.get(), easy);
    }
    transfers_.clear();
  }

  void send(WebhookRequest request) {
    {
      const MutexLock lock(mutex_);
      inbox_.push_back(std::move(request));
    }
    curl_multi_wakeup(multi_.get());
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
      curl_multi_perform(multi_.get(), &running);
      finish();
      curl_multi_poll(multi_.get(), nullptr, 0, kPollMs, nullptr);
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
      CURL* const easy = transfer->easy.get();
      curl_multi_add_handle(multi_.get(), easy);
      transfers_[easy] = std::move(transfer);
    }
  }

  void finish() {
    curl::each_ended(multi_.get(), [this](CURL* easy, CURLcode code) {
      WebhookResponse response = outcome(curl::transfer_of<Transfer>(easy), code);
      curl_multi_remove_handle(multi_.get(), easy);
      transfers_.erase(easy);
      {
        const MutexLock lock(mutex_);
        done_.push_back(std::move(response));
      }
      constexpr uint64_t kOne = 1;
      [[maybe_unused]] const ssize_t n = ::write(event_.get(), &kOne, sizeof kOne);
    });
  }

  const Patience patience_;
  curl::Multi multi_;
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
