#include "worker/engines/http/transfers.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "shared/base/clock.h"

namespace penstock::http_engine {
namespace {

constexpr long kMaxIdleSeconds = 4;  // of a kept connection: uvicorn closes its own after 5 s
constexpr size_t kMostIdle = 64;     // handles
constexpr int kBatch = 128;
// Of one read. libcurl makes up to 100 of them before it looks at another transfer.
constexpr long kReadBytes = 4096;

// There was never a connection that a request could have gone over.
bool never_connected(CURLcode code) {
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT:  // only connecting has a time of libcurl's
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_PEER_FAILED_VERIFICATION:
      return true;
    default:
      return false;
  }
}

}  // namespace

struct Transfers::Transfer {
  uint64_t id = 0;
  CURL* easy = nullptr;
  curl_slist* headers = nullptr;
  Receiver* receiver = nullptr;
  std::string_view body;
  bool heard = false;
  char error[CURL_ERROR_SIZE] = "";

  Transfer() = default;
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;
  ~Transfer() { curl_slist_free_all(headers); }

  static size_t read(char* out, size_t size, size_t count, void* user) {
    auto& self = *static_cast<Transfer*>(user);
    const size_t taken = std::min(size * count, self.body.size());
    std::memcpy(out, self.body.data(), taken);
    self.body.remove_prefix(taken);
    return taken;
  }
  static size_t header(char* data, size_t size, size_t count, void* user) {
    auto& self = *static_cast<Transfer*>(user);
    self.heard = true;
    return self.receiver->on_header({data, size * count}) ? size * count : 0;
  }
  static size_t write(char* data, size_t size, size_t count, void* user) {
    auto& self = *static_cast<Transfer*>(user);
    self.heard = true;
    return self.receiver->on_body({data, size * count}) ? size * count : 0;
  }
};

Transfers::Transfers(const ServerOptions& options)
    : options_(options), epoll_(::epoll_create1(EPOLL_CLOEXEC)), multi_(curl_multi_init()) {
  if (!epoll_.valid() || multi_ == nullptr) {
    throw std::runtime_error("no descriptor or memory left for requests");
  }
  curl_multi_setopt(multi_, CURLMOPT_SOCKETFUNCTION, on_socket);
  curl_multi_setopt(multi_, CURLMOPT_SOCKETDATA, this);
  curl_multi_setopt(multi_, CURLMOPT_TIMERFUNCTION, on_timer);
  curl_multi_setopt(multi_, CURLMOPT_TIMERDATA, this);
  curl_multi_setopt(multi_, CURLMOPT_MAXCONNECTS, static_cast<long>(options.connections));
}

Transfers::~Transfers() {
  for (const auto& [id, transfer] : transfers_) {
    curl_multi_remove_handle(multi_, transfer->easy);
    curl_easy_cleanup(transfer->easy);
  }
  for (CURL* const easy : idle_) {
    curl_easy_cleanup(easy);
  }
  curl_multi_cleanup(multi_);
}

void Transfers::prepare(Transfer& transfer, const Request& request) {
  CURL* const easy = transfer.easy;
  const auto milliseconds = [](int64_t ns) { return static_cast<long>(ns / kNsPerMs); };
  for (const std::string& line : request.headers) {
    transfer.headers = curl_slist_append(transfer.headers, line.c_str());
  }
  transfer.headers = curl_slist_append(transfer.headers, "Expect:");
  curl_easy_setopt(easy, CURLOPT_PRIVATE, &transfer);
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer.error);
  curl_easy_setopt(easy, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, kReadBytes);
  curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_PROXY, "");
  curl_easy_setopt(easy, CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_2TLS));
  curl_easy_setopt(easy, CURLOPT_HTTP09_ALLOWED, 1L);  // else what is no HTTP is not shown to us
  curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "identity");  // and decodes what comes
  curl_easy_setopt(easy, CURLOPT_USERAGENT, "penstock");
  curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, kMaxIdleSeconds);
  curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, request.fresh ? 1L : 0L);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, milliseconds(options_.connect_ns));
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer.headers);
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, Transfer::header);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, Transfer::write);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, &transfer);
  if (!options_.socket.empty()) {
    curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, options_.socket.c_str());
  }
  if (!options_.ca.empty()) {
    curl_easy_setopt(easy, CURLOPT_CAINFO, options_.ca.c_str());
  }
  if (request.method == "GET") {
    return;
  }
  curl_easy_setopt(easy, CURLOPT_POST, 1L);
  curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
  curl_easy_setopt(easy, CURLOPT_READFUNCTION, Transfer::read);
  curl_easy_setopt(easy, CURLOPT_READDATA, &transfer);
  if (request.method != "POST") {
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request.method.c_str());
  }
}

void Transfers::start(uint64_t id, const Request& request, Receiver& receiver) {
  auto transfer = std::make_unique<Transfer>();
  transfer->id = id;
  transfer->receiver = &receiver;
  transfer->body = request.body;
  if (idle_.empty()) {
    transfer->easy = curl_easy_init();
  } else {
    transfer->easy = idle_.back();
    idle_.pop_back();
  }
  prepare(*transfer, request);
  curl_multi_add_handle(multi_, transfer->easy);
  transfers_.emplace(id, std::move(transfer));
}

std::unique_ptr<Transfers::Transfer> Transfers::remove(uint64_t id) {
  const auto found = transfers_.find(id);
  if (found == transfers_.end()) {
    return nullptr;
  }
  auto transfer = std::move(found->second);
  transfers_.erase(found);
  curl_multi_remove_handle(multi_, transfer->easy);
  curl_easy_reset(transfer->easy);
  if (idle_.size() < kMostIdle) {
    idle_.push_back(transfer->easy);
  } else {
    curl_easy_cleanup(transfer->easy);
  }
  return transfer;
}

void Transfers::stop(uint64_t id) { remove(id); }

void Transfers::pause(uint64_t id, bool paused) {
  const auto found = transfers_.find(id);
  if (found != transfers_.end()) {
    curl_easy_pause(found->second->easy, paused ? CURLPAUSE_RECV : CURLPAUSE_CONT);
  }
}

std::vector<Transfers::Ended> Transfers::step(int64_t now_ns) {
  now_ns_ = now_ns;
  epoll_event events[kBatch];
  int running = 0;
  const int ready = ::epoll_wait(epoll_.get(), events, kBatch, 0);
  for (int i = 0; i < ready; ++i) {
    const int socket = events[i].data.fd;
    const auto found = sockets_.find(socket);
    const auto transfer =
        found == sockets_.end() ? transfers_.end() : transfers_.find(found->second);
    char byte = 0;
    // libcurl does not tell of a head that was cut in its first line.
    if (transfer != transfers_.end() && !transfer->second->heard) {
      transfer->second->heard = ::recv(socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
    }
    const uint32_t what = events[i].events;
    const int mask = ((what & EPOLLIN) != 0 ? CURL_CSELECT_IN : 0) |
                     ((what & EPOLLOUT) != 0 ? CURL_CSELECT_OUT : 0) |
                     ((what & (EPOLLERR | EPOLLHUP)) != 0 ? CURL_CSELECT_ERR : 0);
    curl_multi_socket_action(multi_, socket, mask, &running);
  }
  if (due_ns_ <= now_ns) {
    due_ns_ = INT64_MAX;
    curl_multi_socket_action(multi_, CURL_SOCKET_TIMEOUT, 0, &running);
  }
  std::vector<Ended> ended;
  int left = 0;
  while (const CURLMsg* const message = curl_multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE) {
      continue;
    }
    const CURLcode code = message->data.result;
    CURL* const easy = message->easy_handle;
    Transfer* transfer = nullptr;
    long connects = 0;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, &transfer);
    curl_easy_getinfo(easy, CURLINFO_NUM_CONNECTS, &connects);
    const char* const words =
        transfer->error[0] != '\0' ? transfer->error : curl_easy_strerror(code);
    ended.push_back({transfer->id,
                     {.whole = code == CURLE_OK,
                      .connected = !never_connected(code),
                      .heard = transfer->heard,
                      // To rewind is what it wants when a kept connection was dead.
                      .reused = connects == 0 || code == CURLE_SEND_FAIL_REWIND,
                      .error = code == CURLE_OK ? "" : words}});
    remove(transfer->id);
  }
  return ended;
}

int Transfers::on_timer(CURLM*, long after_ms, void* user) {
  auto& self = *static_cast<Transfers*>(user);
  self.due_ns_ = after_ms < 0 ? INT64_MAX : monotonic_ns() + after_ms * kNsPerMs;
  return 0;
}

int Transfers::on_socket(CURL* easy, curl_socket_t socket, int what, void* user, void* known) {
  static_cast<Transfers*>(user)->watch(easy, socket, what, known != nullptr);
  return 0;
}

void Transfers::watch(CURL* easy, int socket, int what, bool known) {
  if (what == CURL_POLL_REMOVE) {
    sockets_.erase(socket);
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, socket, nullptr);  // it may be closed already
    return;
  }
  Transfer* transfer = nullptr;
  curl_easy_getinfo(easy, CURLINFO_PRIVATE, &transfer);
  if (transfer != nullptr) {
    sockets_[socket] = transfer->id;
  }
  epoll_event event{};
  event.events =
      ((what & CURL_POLL_IN) != 0 ? EPOLLIN : 0U) | ((what & CURL_POLL_OUT) != 0 ? EPOLLOUT : 0U);
  event.data.fd = socket;
  if (::epoll_ctl(epoll_.get(), known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, socket, &event) != 0) {
    ::epoll_ctl(epoll_.get(), known ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, socket, &event);
  }
  curl_multi_assign(multi_, socket, this);  // not null: it is known from now on
}

}  // namespace penstock::http_engine
