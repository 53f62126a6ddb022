#include "worker/queue/publish/status_page_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace penstock::queue {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

Error failed(const std::string& what) { return Error{what + ": " + std::strerror(errno)}; }

}  // namespace

Result<StatusPageWriter> StatusPageWriter::create(const std::string& path, const Access& access) {
  const std::string fresh = path + ".new";
  ::unlink(fresh.c_str());
  Fd fd(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.valid()) {
    return failed(fresh + " cannot be made");
  }
  StatusPageWriter writer(path, std::move(fd));
  writer.page_->pid.store(static_cast<uint64_t>(::getpid()), kRelaxed);
  writer.page_->magic.store(wire::kStatusMagic, kRelaxed);
  writer.write(0);
  // Readers need no right to write: who may connect may read.
  const Access readers{(access.mode & 0444U) | 0200U, access.group};
  if (Status granted = grant(fresh, readers); !granted) {
    return granted.error();
  }
  if (::rename(fresh.c_str(), path.c_str()) != 0) {
    return failed(path + " cannot be replaced");
  }
  return writer;
}

StatusPageWriter::~StatusPageWriter() {
  if (fd_.valid()) {
    ::unlink(path_.c_str());
  }
}

// A page that could not be written grows stale, and is then not believed.
void StatusPageWriter::write(int64_t now_ns) {
  written_ns_ = now_ns;
  changed_ = state_changed_ = false;
  [[maybe_unused]] const ssize_t n =
      ::pwrite(fd_.get(), static_cast<const void*>(page_.get()), sizeof *page_, 0);
}

void StatusPageWriter::heartbeat(int64_t now_ns, int64_t real_ns) {
  page_->heartbeat_ns.store(real_ns, kRelaxed);
  write(now_ns);
}

void StatusPageWriter::flush(int64_t now_ns) {
  if (state_changed_ || (changed_ && now_ns - written_ns_ >= kWriteNs)) {
    write(now_ns);
  }
}

// Its row, or a free one, which has its name now; nullptr: there is none.
wire::QueueStatus* StatusPageWriter::row_of(std::string_view queue) {
  const std::string_view name = queue.substr(0, wire::kQueueNameBytes - 1);
  size_t free = wire::kMaxQueues;
  for (size_t i = 0; i < wire::kMaxQueues; ++i) {
    wire::QueueStatus& row = page_->queues[i];
    if (row.state.load(kRelaxed) == 0) {
      free = i;
      break;
    }
    if (name == row.name) {
      retired_.reset(i);
      return &row;
    }
  }
  for (size_t i = 0; i < wire::kMaxQueues && free == wire::kMaxQueues; ++i) {
    free = retired_[i] ? i : free;
  }
  if (free == wire::kMaxQueues) {
    return nullptr;
  }
  wire::QueueStatus& row = page_->queues[free];
  if (row.state.exchange(0, kRelaxed) != 0) {
    write(written_ns_);  // no reader sees the one's numbers under the other's name
  }
  retired_.reset(free);
  std::memset(row.name, 0, sizeof row.name);
  std::memcpy(row.name, name.data(), name.size());
  return &row;
}

void StatusPageWriter::retire(std::string_view queue) {
  for (size_t i = 0; i < wire::kMaxQueues; ++i) {
    if (queue == page_->queues[i].name) {
      retired_.set(i);
    }
  }
}

void StatusPageWriter::set(std::string_view queue, const Row& row) {
  wire::QueueStatus* const entry = row_of(queue);
  if (entry == nullptr) {
    return;
  }
  const auto put = [this](auto& field, auto value) {
    const bool differs = field.load(kRelaxed) != value;
    changed_ |= differs;
    field.store(value, kRelaxed);
    return differs;
  };
  put(entry->length, row.length);
  put(entry->running, row.running);
  put(entry->slots, row.slots);
  put(entry->predicted_wait_ms, row.predicted_wait_ms);
  put(entry->retry_after_s, row.retry_after_s);
  put(entry->drain_step_us, row.drain_step_us);
  put(entry->returns_until_ns, row.returns_until_ns);
  state_changed_ |= put(entry->state, static_cast<uint32_t>(row.state));
}

}  // namespace penstock::queue
