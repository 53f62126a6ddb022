#include "worker/engines/http/transfers.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <stdexcept>
#include <utility>

#include "shared/base/clock.h"
#include "shared/http/curl.h"

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

// A handle, and what it was set to last.
struct Transfers::Transfer {
  Transfers& all;
  const curl::Easy handle{curl_easy_init()};
  CURL* const easy = handle.get();
  const curl::Url parsed{curl_url()};
  uint64_t id = 0;
  Receiver* receiver = nullptr;
  std::string method;
  std::string url;
  std::vector<std::string> lines;      // of the head
  std::vector<std::string_view> body;  // what on_read() is to give, the next piece last
  curl::Headers headers;
  bool sent = false;   // the request
  bool again = false;  // libcurl would have sent it once more
  bool heard = false;
  char error[CURL_ERROR_SIZE] = "";

  explicit Transfer(Transfers& transfers);
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;
  void prepare(const Request& request);

  static size_t on_header(char* data, size_t size, size_t count, void* user) {
    auto& self = *static_cast<Transfer*>(user);
    self.heard = true;
    return self.receiver->on_header({data, size * count}) ? size * count : 0;
  }
  static size_t on_body(char* data, size_t size, size_t count, void* user) {
    auto& self = *static_cast<Transfer*>(user);
    self.heard = true;
    return self.receiver->on_body({data, size * count}) ? size * count : 0;
  }
  static size_t on_read(char* out, size_t size, size_t count, void* user) {
    auto& body = static_cast<Transfer*>(user)->body;
    while (!body.empty() && body.back().empty()) {
      body.pop_back();
    }
    const size_t taken = body.empty() ? 0 : body.back().copy(out, size * count);
    if (taken > 0) {
      body.back().remove_prefix(taken);
    }
    return taken;
  }
  // A connection is there, and the request is about to go.
  static int on_request(void* user, char*, char*, int, int) {
    auto& self = *static_cast<Transfer*>(user);
    self.again = self.sent;
    self.sent = true;
    return self.again ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
  }
  static curl_socket_t on_connect(void* user, curlsocktype, curl_sockaddr* address) {
    auto& self = *static_cast<Transfer*>(user);
    self.again = self.sent;
    if (self.again) {
      return CURL_SOCKET_BAD;
    }
    const int type = address->socktype | SOCK_CLOEXEC;
    const int socket = ::socket(address->family, type, address->protocol);
    if (socket >= 0) {
      self.all.sockets_[socket] = {.connection = true};
    }
    return socket;
  }
};

Transfers::Transfers(const ServerOptions& options)
    : options_(options), epoll_(::epoll_create1(EPOLL_CLOEXEC)), multi_(curl_multi_init()) {
  if (!epoll_.valid() || multi_ == nullptr) {
    throw std::runtime_error("no descriptor or memory left for requests");
  }
  curl_multi_setopt(multi_.get(), CURLMOPT_SOCKETFUNCTION, on_socket);
  curl_multi_setopt(multi_.get(), CURLMOPT_SOCKETDATA, this);
  curl_multi_setopt(multi_.get(), CURLMOPT_TIMERFUNCTION, on_timer);
  curl_multi_setopt(multi_.get(), CURLMOPT_TIMERDATA, this);
  curl_multi_setopt(multi_.get(), CURLMOPT_MAXCONNECTS, static_cast<long>(options.connections));
}

Transfers::~Transfers() {
  for (const auto& [id, transfer] : transfers_) {
    curl_multi_remove_handle(multi_.get(), transfer->easy);
  }
  transfers_.clear();
  idle_.clear();
}

Transfers::Transfer::Transfer(Transfers& transfers) : all(transfers) {
  const ServerOptions& options = all.options_;
  curl::set_common_options(easy, this);
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, error);
  curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, kReadBytes);
  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_2TLS));
  curl_easy_setopt(easy, CURLOPT_HTTP09_ALLOWED, 1L);  // else what is no HTTP is not shown to us
  curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "identity");  // and decodes what comes
  curl_easy_setopt(easy, CURLOPT_USERAGENT, "penstock");
  curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, kMaxIdleSeconds);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                   static_cast<long>(options.connect_ns / kNsPerMs));
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, this);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, this);
  curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
  curl_easy_setopt(easy, CURLOPT_READDATA, this);
  curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_request);
  curl_easy_setopt(easy, CURLOPT_PREREQDATA, this);
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_connect);
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, this);
  curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, on_close);
  curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, &all);
  if (!options.socket.empty()) {
    curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, options.socket.c_str());
  }
  if (!options.ca.empty()) {
    curl_easy_setopt(easy, CURLOPT_CAINFO, options.ca.c_str());
  }
}

// What differs from the last request is set.
void Transfers::Transfer::prepare(const Request& request) {
  sent = again = heard = false;
  error[0] = '\0';
  if (url != request.url) {
    url = request.url;
    // What is no URL is told as the transfer's end.
    const bool good =
        curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), CURLU_PATH_AS_IS) == CURLUE_OK;
    curl_easy_setopt(easy, CURLOPT_CURLU, good ? parsed.get() : nullptr);
    curl_easy_setopt(easy, CURLOPT_URL, good ? nullptr : url.c_str());
  }
  if (lines != request.headers || headers == nullptr) {
    lines = request.headers;
    curl::Headers list{curl_slist_append(nullptr, "Expect:")};
    curl::append(list, lines);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, list.get());
    headers = std::move(list);
  }
  curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, request.fresh ? 1L : 0L);
  if (method != request.method) {
    method = request.method;
    const bool usual = method == "GET" || method == "POST";
    curl_easy_setopt(easy, method == "GET" ? CURLOPT_HTTPGET : CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, usual ? nullptr : method.c_str());
  }
  if (method != "GET") {
    size_t bytes = 0;
    for (const std::string_view piece : request.body) {
      bytes += piece.size();
    }
    // One piece leaves with the head; of several libcurl reads as it goes.
    const char* const whole = bytes == 0                 ? ""
                              : request.body.size() == 1 ? request.body.front().data()
                                                         : nullptr;
    body.assign(request.body.rbegin(), request.body.rend());
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, whole);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(bytes));
  }
}

std::unique_ptr<Transfers::Transfer> Transfers::take_idle() {
  if (idle_.empty()) {
    return std::make_unique<Transfer>(*this);
  }
  auto transfer = std::move(idle_.back());
  idle_.pop_back();
  return transfer;
}

void Transfers::start(uint64_t id, const Request& request, Receiver& receiver) {
  auto transfer = take_idle();
  transfer->id = id;
  transfer->receiver = &receiver;
  transfer->prepare(request);
  curl_multi_add_handle(multi_.get(), transfer->easy);
  transfers_.emplace(id, std::move(transfer));
}

void Transfers::remove(uint64_t id) {
  const auto found = transfers_.find(id);
  if (found == transfers_.end()) {
    return;
  }
  curl_multi_remove_handle(multi_.get(), found->second->easy);
  if (idle_.size() < kMostIdle) {
    idle_.push_back(std::move(found->second));
  }
  transfers_.erase(found);
}

void Transfers::stop(uint64_t id) { remove(id); }

void Transfers::pause(uint64_t id, bool paused) {
  const auto found = transfers_.find(id);
  if (found != transfers_.end()) {
    curl_easy_pause(found->second->easy, paused ? CURLPAUSE_RECV : CURLPAUSE_CONT);
  }
}

// Of a kept connection that nobody uses libcurl wants to hear nothing: it looks before it uses it.
void Transfers::move(int socket, uint32_t events) {
  const auto watched = sockets_.find(socket);
  if (watched != sockets_.end() && watched->second.id == 0) {
    return unwatch(socket);
  }
  const auto transfer =
      watched == sockets_.end() ? transfers_.end() : transfers_.find(watched->second.id);
  char byte = 0;
  // libcurl does not tell of a head that was cut in its first line.
  if (transfer != transfers_.end() && !transfer->second->heard) {
    transfer->second->heard = ::recv(socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
  }
  const int mask = ((events & EPOLLIN) != 0 ? CURL_CSELECT_IN : 0) |
                   ((events & EPOLLOUT) != 0 ? CURL_CSELECT_OUT : 0) |
                   ((events & (EPOLLERR | EPOLLHUP)) != 0 ? CURL_CSELECT_ERR : 0);
  int running = 0;
  curl_multi_socket_action(multi_.get(), socket, mask, &running);
}

std::vector<Transfers::Ended> Transfers::step(int64_t now_ns) {
  epoll_event events[kBatch];
  const int ready = ::epoll_wait(epoll_.get(), events, kBatch, 0);
  for (int i = 0; i < ready; ++i) {
    move(events[i].data.fd, events[i].events);
  }
  if (due_ns_ <= now_ns) {
    int running = 0;
    due_ns_ = INT64_MAX;
    curl_multi_socket_action(multi_.get(), CURL_SOCKET_TIMEOUT, 0, &running);
  }
  std::vector<Ended> ended;
  curl::each_ended(multi_.get(), [&](CURL* easy, CURLcode code) {
    const Transfer& transfer = curl::transfer_of<Transfer>(easy);
    long connects = 0;
    curl_easy_getinfo(easy, CURLINFO_NUM_CONNECTS, &connects);
    // To read a body from its beginning is what it wants first, where that comes in pieces.
    const bool again = transfer.again || code == CURLE_SEND_FAIL_REWIND;
    const char* const words = again                       ? "the kept connection was closed"
                              : transfer.error[0] != '\0' ? transfer.error
                                                          : curl_easy_strerror(code);
    ended.push_back({transfer.id,
                     {.whole = code == CURLE_OK,
                      .connected = again || !never_connected(code),
                      .heard = transfer.heard,
                      .reused = connects == 0 || again,
                      .error = code == CURLE_OK ? "" : words}});
    remove(transfer.id);
  });
  return ended;
}

int Transfers::on_timer(CURLM*, long after_ms, void* user) {
  static_cast<Transfers*>(user)->due_ns_ = after_ms < 0    ? INT64_MAX
                                           : after_ms == 0 ? 0
                                                           : monotonic_ns() + after_ms * kNsPerMs;
  return 0;
}

int Transfers::on_socket(CURL* easy, curl_socket_t socket, int what, void* user, void*) {
  static_cast<Transfers*>(user)->watch(easy, socket, what);
  return 0;
}

int Transfers::on_close(void* user, curl_socket_t socket) {
  static_cast<Transfers*>(user)->sockets_.erase(socket);
  return ::close(socket);  // with which epoll forgets it
}

void Transfers::watch(CURL* easy, int socket, int what) {
  Watched& watched = sockets_[socket];
  if (what == CURL_POLL_REMOVE) {
    watched.id = 0;
    return watched.connection ? void() : unwatch(socket);
  }
  Transfer* transfer = nullptr;  // none of a handle of libcurl's own
  curl_easy_getinfo(easy, CURLINFO_PRIVATE, &transfer);
  if (transfer != nullptr) {
    watched.id = transfer->id;
  }
  const uint32_t wanted =
      ((what & CURL_POLL_IN) != 0 ? EPOLLIN : 0U) | ((what & CURL_POLL_OUT) != 0 ? EPOLLOUT : 0U);
  if (watched.events != wanted) {
    epoll_event event{.events = wanted, .data = {.fd = socket}};
    ::epoll_ctl(epoll_.get(), watched.events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, socket, &event);
    watched.events = wanted;
  }
}

// Until a transfer asks for it again.
void Transfers::unwatch(int socket) {
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, socket, nullptr);
  Watched& watched = sockets_[socket];
  watched.events.reset();
  if (!watched.connection) {
    sockets_.erase(socket);
  }
}

}  // namespace penstock::http_engine
