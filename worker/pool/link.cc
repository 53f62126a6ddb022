#include "worker/pool/link.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace penstock {

Link::Link(Fd socket, wire::Limits limits)
    : socket_(std::move(socket)),
      limits_(limits),
      in_(std::make_shared_for_overwrite<char[]>(kUsualBytes)) {}

// Ensures room for the frame at begin_, and for at least one byte.
void Link::make_room() {
  const size_t held = end_ - begin_;
  const size_t want = std::max({needed_, held + 1, kUsualBytes});
  if (want > capacity_ || (held == 0 && capacity_ > kUsualBytes && want == kUsualBytes)) {
    auto other = std::make_shared_for_overwrite<char[]>(want);
    std::memcpy(other.get(), in_.get() + begin_, held);
    in_ = std::move(other);
    capacity_ = want;
  } else if (held == 0 || begin_ + want > capacity_) {
    std::memmove(in_.get(), in_.get() + begin_, held);
  } else {
    return;
  }
  begin_ = 0;
  end_ = held;
}

bool Link::receive() {
  make_room();
  for (;;) {
    const ssize_t got = ::recv(socket_.get(), in_.get() + end_, capacity_ - end_, MSG_DONTWAIT);
    if (got > 0) {
      end_ += static_cast<size_t>(got);
      return true;
    }
    if (got == 0 || (errno != EINTR && errno != EAGAIN)) {
      return false;
    }
    if (errno == EAGAIN) {
      return true;
    }
  }
}

wire::Decoded Link::next() {
  const wire::Decoded decoded = wire::decode({in_.get() + begin_, end_ - begin_}, limits_);
  needed_ = decoded.needed;
  begin_ += decoded.consumed;
  return decoded;
}

std::shared_ptr<const void> Link::keep() {
  if (capacity_ <= kUsualBytes) {
    return nullptr;
  }
  const std::shared_ptr<char[]> kept = in_;
  const size_t held = end_ - begin_;
  capacity_ = std::max(held, kUsualBytes);
  in_ = std::make_shared_for_overwrite<char[]>(capacity_);
  std::memcpy(in_.get(), kept.get() + begin_, held);
  begin_ = 0;
  end_ = held;
  return kept;
}

bool Link::flush() {
  const MutexLock lock(mutex_);
  if (sending_.empty()) {
    sending_.swap(out_);
  } else {
    if (sending_.size() + out_.size() > sending_.capacity()) {  // at once: doubling holds it thrice
      sending_.reserve(std::max(sending_.size() + out_.size(), kWindowBytes));
    }
    sending_.append(out_);
    out_.clear();
  }
  return send();
}

void Link::send_beside(std::string_view frame) {
  const MutexLock lock(mutex_);
  if (sending_.empty()) {
    sending_ = frame;
  }
  send();  // whether penstockd is gone is seen by the other thread
}

bool Link::send() {
  while (sent_ < sending_.size()) {
    const ssize_t put = ::send(socket_.get(), sending_.data() + sent_, sending_.size() - sent_,
                               MSG_DONTWAIT | MSG_NOSIGNAL);
    if (put < 0 && errno == EINTR) {
      continue;
    }
    if (put < 0) {
      const bool full = errno == EAGAIN;
      // What left is given up once it is most of the buffer: each byte is moved once on average.
      if (sent_ > sending_.size() / 2) {
        sending_.erase(0, sent_);
        sent_ = 0;
      }
      left_ = sending_.size() - sent_;
      return full;
    }
    sent_ += static_cast<size_t>(put);
  }
  sending_.clear();
  sent_ = 0;
  left_ = 0;
  if (sending_.capacity() > 4 * kUsualBytes) {
    sending_.shrink_to_fit();
  }
  return true;
}

}  // namespace penstock
