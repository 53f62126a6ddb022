#include "worker/queue/status_page_writer.h"

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

void StatusPageWriter::heartbeat(int64_t now_ns) {
  page_->heartbeat_ns.store(now_ns, kRelaxed);
  write(now_ns);
}

void StatusPageWriter::flush(int64_t now_ns) {
  if (state_changed_ || (changed_ && now_ns - written_ns_ >= kWriteNs)) {
    write(now_ns);
  }
}

void StatusPageWriter::set(std::string_view queue, const Row& row) {
  for (wire::QueueStatus& entry : page_->queues) {
    const bool free = entry.state.load(kRelaxed) == 0;
    if (!free && queue != entry.name) {
      continue;
    }
    if (free) {
      const size_t size = std::min(queue.size(), wire::kQueueNameBytes - 1);
      std::memcpy(entry.name, queue.data(), size);
    }
    const auto put = [this](auto& field, auto value) {
      const bool differs = field.load(kRelaxed) != value;
      changed_ |= differs;
      field.store(value, kRelaxed);
      return differs;
    };
    put(entry.length, row.length);
    put(entry.running, row.running);
    put(entry.slots, row.slots);
    put(entry.predicted_wait_ms, row.predicted_wait_ms);
    put(entry.retry_after_s, row.retry_after_s);
    put(entry.drain_step_us, row.drain_step_us);
    put(entry.returns_until_ns, row.returns_until_ns);
    state_changed_ |= put(entry.state, static_cast<uint32_t>(row.state));
    return;
  }
}

}  // namespace penstock::queue
