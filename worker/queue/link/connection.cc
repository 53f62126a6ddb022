#include "worker/queue/link/connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "shared/wire/messages.h"

namespace penstock::queue {
namespace {

constexpr size_t kMinReadBytes = 16U << 10;
constexpr size_t kMaxReadBytes = 1U << 20;
constexpr size_t kCompactBytes = 1U << 20;

bool try_again() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

}  // namespace

std::string ConnectionLoop::take_spare() {
  if (spare_.empty()) {
    return {};
  }
  std::string buffer = std::move(spare_.back());
  spare_.pop_back();
  return buffer;
}

void ConnectionLoop::give_spare(std::string buffer) {
  if (spare_.size() < kMaxSpare && buffer.capacity() <= kMaxSpareBytes) {
    buffer.clear();
    spare_.push_back(std::move(buffer));
  }
}

void ConnectionLoop::reap() {
  while (!closed_.empty()) {
    Connection* const connection = closed_.back();
    closed_.pop_back();
    connection->on_closed();
  }
}

void ConnectionLoop::flush() {
  for (; !delayed_.empty() && delayed_.front().due_ns <= now_ns_; delayed_.pop_front()) {
    if (Connection* const connection = delayed_.front().connection; connection != nullptr) {
      connection->delayed_ = false;
      if (!connection->out_.empty()) {
        connection->mark_dirty();
      }
    }
  }
  for (size_t i = 0; i < dirty_.size(); ++i) {  // more may come: see on_drained()
    Connection* const connection = dirty_[i];
    connection->dirty_ = false;
    if (!connection->clogged()) {
      connection->flush();
    }
  }
  dirty_.clear();
}

void ConnectionLoop::hold() { holds_ = true; }

void ConnectionLoop::go_on() {
  holds_ = false;
  for (Connection* const connection : std::exchange(held_, {})) {
    if (!connection->closed() &&
        !loop_.add(connection->fd_.get(), connection->events_, connection)) {
      connection->close();
    }
  }
}

int64_t ConnectionLoop::next_event() const {
  if (!closed_.empty() || !dirty_.empty()) {
    return 0;
  }
  return delayed_.empty() ? INT64_MAX : delayed_.front().due_ns;
}

Connection::~Connection() {
  if (!closed() && !handed_over_) {
    connections_.loop_.remove(fd_.get(), this);
  }
  expect(0);
  if (delayed_) {
    for (ConnectionLoop::Delayed& delayed : connections_.delayed_) {
      delayed.connection = delayed.connection == this ? nullptr : delayed.connection;
    }
  }
  if (dirty_) {
    std::erase(connections_.dirty_, this);
  }
  std::erase(connections_.closed_, this);
  std::erase(connections_.held_, this);
}

Status Connection::open() { return connections_.loop_.add(fd_.get(), EPOLLIN, this); }

void Connection::close() {
  if (!closed()) {
    connections_.loop_.remove(fd_.get(), this);
    fd_.reset();
    recycle();
    partial_ = {};
    expect(0);
    connections_.closed_.push_back(this);
  }
}

void Connection::hand_over() {
  handed_over_ = true;
  connections_.loop_.remove(fd_.get(), this);
  connections_.closed_.push_back(this);
}

Connection::Released Connection::release() {
  recycle();
  expect(0);
  return {std::move(fd_), std::exchange(partial_, {})};
}

void Connection::read_first(std::string_view bytes) {
  const size_t used = consume(bytes);
  if (!closed() && used < bytes.size()) {
    partial_ = bytes.substr(used);
  }
}

std::string& Connection::out() {
  mark_dirty();
  return out_;
}

std::string& Connection::out_delayed() {
  if (out_.empty()) {
    out_ = connections_.take_spare();
  }
  if (!delayed_ && !dirty_) {
    delayed_ = true;
    connections_.delayed_.push_back({connections_.now_ns_ + ConnectionLoop::kDelayNs, this});
  }
  return out_;
}

void Connection::mark_dirty() {
  if (!dirty_) {
    dirty_ = true;
    connections_.dirty_.push_back(this);
    if (out_.empty()) {
      out_ = connections_.take_spare();
    }
  }
}

// Gives back what has been sent.
void Connection::recycle() {
  connections_.give_spare(std::move(out_));
  out_ = {};
  sent_ = told_ = 0;
  shared_.clear();
  shared_bytes_ = 0;
}

void Connection::send_shared(const SharedBytes& bytes, size_t from) {
  const size_t at = out().size();
  shared_bytes_ += bytes.size() - from;
  shared_.push_back({at, bytes, from});
}

std::string_view Connection::next_unsent() const {
  const std::string_view own = out_;
  if (shared_.empty()) {
    return own.substr(sent_);
  }
  const Shared& next = shared_.front();
  return sent_ < next.at ? own.substr(sent_, next.at - sent_) : next.bytes.view().substr(next.sent);
}

void Connection::note_sent(size_t bytes) {
  if (shared_.empty() || sent_ < shared_.front().at) {
    sent_ += bytes;
    return;
  }
  Shared& next = shared_.front();
  shared_bytes_ -= bytes;
  next.sent += bytes;
  if (next.sent == next.bytes.size()) {
    shared_.pop_front();
  }
}

void Connection::flush() {
  if (closed() || unsent() == 0) {
    recycle();
    return;
  }
  on_written(std::string_view(out_).substr(std::exchange(told_, out_.size())));
  for (bool more = true; more && unsent() > 0;) {
    const std::string_view next = next_unsent();
    const ssize_t n = ::send(fd_.get(), next.data(), next.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && !try_again()) {
      close();
      return;
    }
    if (n > 0 || !clogged()) {
      moved_ns_ = connections_.now_ns_;
    }
    note_sent(static_cast<size_t>(std::max<ssize_t>(0, n)));
    more = n == static_cast<ssize_t>(next.size());
  }
  watch();
  if (unsent() == 0) {
    recycle();
  } else if (sent_ > kCompactBytes) {
    out_.erase(0, sent_);
    told_ -= sent_;
    for (Shared& each : shared_) {
      each.at -= sent_;
    }
    sent_ = 0;
  }
  if (drained_at_ != SIZE_MAX && unsent() <= drained_at_) {
    drained_at_ = SIZE_MAX;
    on_drained();
  }
}

void Connection::watch() {
  const uint32_t wanted = (unsent() > 0 ? EPOLLOUT : 0U) | (unsent() > pause_bytes_ ? 0U : EPOLLIN);
  if (wanted != events_) {
    events_ = wanted;
    connections_.loop_.modify(fd_.get(), wanted, this);
  }
}

void Connection::refuse(std::string_view reason) {
  if (!closed()) {
    ++connections_.protocol_errors_;
    on_refused(reason);
    say_goodbye(reason);
  }
}

void Connection::say_goodbye(std::string_view reason, bool denied) {
  if (!closed()) {
    wire::append(out_, 0, wire::Goodbye{.message = reason, .denied = denied ? 1U : 0U});
    flush();
    close();
  }
}

Connection::Carried Connection::carry() const {
  Carried carried{.unread = partial_, .to_skip = to_skip_, .unsent = {}};
  carried.unsent.reserve(unsent());
  size_t at = sent_;
  for (const Shared& each : shared_) {
    carried.unsent.append(out_, at, each.at - at).append(each.bytes.view().substr(each.sent));
    at = each.at;
  }
  carried.unsent.append(out_, at);
  return carried;
}

void Connection::take_over(std::string_view unread, uint64_t to_skip, std::string_view unsent) {
  partial_ = unread;
  to_skip_ = to_skip;
  if (!unsent.empty()) {
    out() = unsent;
    told_ = unsent.size();
  }
}

void Connection::on_events(uint32_t epoll_events) {
  connections_.read_clock();
  if (connections_.holds_) {
    if ((epoll_events & EPOLLOUT) != 0) {
      flush();
    }
    if ((epoll_events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && !closed()) {
      connections_.loop_.remove(fd_.get(), this);
      connections_.held_.push_back(this);
    }
    return;
  }
  if ((epoll_events & EPOLLOUT) != 0) {
    flush();
  }
  if ((epoll_events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && !closed()) {
    partial_.empty() ? read() : read_rest();
  }
}

void Connection::read() {
  std::string& scratch = connections_.scratch_;
  const ssize_t n = ::recv(fd_.get(), scratch.data(), scratch.size(), MSG_DONTWAIT);
  if (n <= 0) {
    if (n == 0 || !try_again()) {
      close();
    }
    return;
  }
  const std::string_view buffer(scratch.data(), static_cast<size_t>(n));
  const size_t used = consume(buffer);
  if (!closed() && used < buffer.size()) {
    partial_.assign(buffer.substr(used));
  }
}

// Goes on with an unfinished frame in its own buffer, which grows with what arrives, not with what
// was announced.
void Connection::read_rest() {
  const size_t have = partial_.size();
  const size_t needed = wire::decode(partial_, connections_.limits_).needed;
  const size_t room = std::clamp(needed - have, kMinReadBytes, kMaxReadBytes);
  if (have >= needed / 2) {  // once: doubling would hold a large one twice at its end
    partial_.reserve(std::max(needed, have + room));
  }
  partial_.resize(have + room);
  const ssize_t n = ::recv(fd_.get(), partial_.data() + have, room, MSG_DONTWAIT);
  partial_.resize(have + static_cast<size_t>(std::max<ssize_t>(0, n)));
  if (n <= 0) {
    if (n == 0 || !try_again()) {
      close();
    }
    return;
  }
  std::string whole = std::move(partial_);
  partial_ = {};
  whole_ = &whole;
  const size_t used = consume(whole);
  whole_ = nullptr;
  if (!closed() && used < whole.size()) {
    whole.erase(0, used);
    partial_ = std::move(whole);
  }
}

std::string Connection::take(std::string_view bytes) {
  const bool is_all = whole_ != nullptr && bytes.data() == whole_->data() &&
                      bytes.size() == whole_->size() && bytes.size() >= kMinReadBytes;
  return is_all ? std::exchange(*whole_, {}) : std::string(bytes);
}

// Passes over what is left of an oversized frame. Returns the bytes it took.
size_t Connection::skip(std::string_view buffer) {
  const size_t skipped = std::min<uint64_t>(to_skip_, buffer.size());
  to_skip_ -= skipped;
  return skipped;
}

// Counts a frame that is not whole yet, once its header is here. False: it is not wanted.
bool Connection::begin(const wire::Decoded& decoded) {
  if (decoded.needed <= wire::kHeaderBytes || expected_ > 0) {
    return true;
  }
  if (!on_begun(decoded.frame.header)) {
    return false;
  }
  if (!closed()) {
    expect(decoded.needed);
  }
  return true;
}

void Connection::expect(size_t bytes) {
  connections_.unfinished_bytes_ += bytes - expected_;
  expected_ = bytes;
}

// Tells every whole frame. Returns the bytes they took.
size_t Connection::consume(std::string_view buffer) {
  size_t used = skip(buffer);
  while (!closed() && !handed_over_) {
    const wire::Decoded decoded = wire::decode(buffer.substr(used), connections_.limits_);
    if (decoded.kind == wire::Decoded::kBad) {
      if (decoded.error == wire::kOverLimit && on_oversized(decoded.frame.header)) {
        to_skip_ = wire::kHeaderBytes + uint64_t{decoded.frame.header.length};
        used += skip(buffer.substr(used));
        continue;
      }
      refuse(decoded.error);
    }
    if (decoded.kind == wire::Decoded::kIncomplete && !begin(decoded)) {
      to_skip_ = decoded.needed;
      used += skip(buffer.substr(used));
      continue;
    }
    if (decoded.kind != wire::Decoded::kFrame) {
      break;
    }
    expect(0);
    on_frame(decoded.frame, buffer.substr(used, decoded.consumed));
    used += decoded.consumed;
  }
  return used;
}

}  // namespace penstock::queue
