#include "worker/queue/status_page_writer.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>

#include "shared/base/fd.h"

namespace penstock::queue {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

Error failed(const std::string& what) { return Error{what + ": " + std::strerror(errno)}; }

}  // namespace

Result<StatusPageWriter> StatusPageWriter::create(const std::string& path, const Access& access) {
  const std::string fresh = path + ".new";
  ::unlink(fresh.c_str());
  const Fd fd(::open(fresh.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.valid() || ::ftruncate(fd.get(), sizeof(wire::StatusPage)) != 0) {
    return failed(fresh + " cannot be made");
  }
  void* const memory =
      ::mmap(nullptr, sizeof(wire::StatusPage), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (memory == MAP_FAILED) {
    return failed(fresh + " cannot be mapped");
  }
  StatusPageWriter writer(path, new (memory) wire::StatusPage{});
  // Readers need no right to write: who may connect may read.
  const Access readers{(access.mode & 0444U) | 0200U, access.group};
  if (Status granted = grant(fresh, readers); !granted) {
    return granted.error();
  }
  writer.page_->pid.store(static_cast<uint64_t>(::getpid()), kRelaxed);
  writer.page_->magic.store(wire::kStatusMagic, std::memory_order_release);
  if (::rename(fresh.c_str(), path.c_str()) != 0) {
    return failed(path + " cannot be replaced");
  }
  return writer;
}

StatusPageWriter::~StatusPageWriter() {
  if (page_ != nullptr) {
    page_->heartbeat_ns.store(0, kRelaxed);
    ::unlink(path_.c_str());
  }
}

void StatusPageWriter::Unmap::operator()(wire::StatusPage* page) const {
  ::munmap(page, sizeof *page);
}

void StatusPageWriter::heartbeat(int64_t now_ns) { page_->heartbeat_ns.store(now_ns, kRelaxed); }

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
    entry.length.store(row.length, kRelaxed);
    entry.running.store(row.running, kRelaxed);
    entry.slots.store(row.slots, kRelaxed);
    entry.predicted_wait_ms.store(row.predicted_wait_ms, kRelaxed);
    entry.retry_after_s.store(row.retry_after_s, kRelaxed);
    entry.state.store(static_cast<uint32_t>(row.state), std::memory_order_release);
    return;
  }
}

}  // namespace penstock::queue
