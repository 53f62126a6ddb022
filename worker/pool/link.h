// Link: the worker's end of the socket pair to penstockd, with a buffer each way.
//
// Never blocks. Input is bounded by the largest frame the limits allow; output is bounded by its
// users, who look at unsent_bytes() before they make more.
//
// One thread uses it; another may say something beside it, by send_beside() alone.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "shared/base/fd.h"
#include "shared/base/mutex.h"
#include "shared/wire/frame.h"

namespace penstock {

class Link {
 public:
  explicit Link(Fd socket, wire::Limits limits = {});

  int fd() const { return socket_.get(); }

  // Reads what is there, up to the buffer's room. False when penstockd is gone (end of file,
  // reset).
  bool receive();
  // The next whole frame; its views are valid until the next receive().
  wire::Decoded next();

  // The memory in which what next() told of last lies, to keep it; nullptr: it is not large, and
  // better copied.
  std::shared_ptr<const void> keep();

  // Frames to be sent are appended here.
  std::string& out() { return out_; }
  size_t unsent_bytes() const { return out_.size() + left_; }
  // Sends as much as the socket takes. False when penstockd is gone.
  bool flush();
  // Any thread's: sends a whole frame at once, unless others are under way still; then these go on.
  void send_beside(std::string_view frame);

 private:
  void make_room();
  bool send() REQUIRES(mutex_);

  static constexpr size_t kUsualBytes = 256U << 10;  // both buffers shrink back to about this
  // What is unsent of one answer that nobody reads.
  static constexpr size_t kWindowBytes = wire::kFirstWindowBytes + kUsualBytes;

  Fd socket_;
  wire::Limits limits_;
  std::shared_ptr<char[]> in_;  // [begin_, end_) is read and not yet decoded
  size_t capacity_ = kUsualBytes;
  size_t begin_ = 0;
  size_t end_ = 0;
  size_t needed_ = 0;  // bytes the frame at begin_ takes, as far as known
  std::string out_;

  Mutex mutex_;
  std::string sending_ GUARDED_BY(mutex_);
  size_t sent_ GUARDED_BY(mutex_) = 0;  // bytes of it that left
  std::atomic<size_t> left_ = 0;        // bytes of it that did not
};

}  // namespace penstock
