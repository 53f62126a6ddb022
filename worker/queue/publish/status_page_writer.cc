#include "worker/queue/publish/status_page_writer.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace penstock::queue {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

}  // namespace

Result<StatusPageWriter> StatusPageWriter::create(const std::string& path, const Access& access) {
  auto page = std::make_unique<wire::StatusPage>();
  page->pid.store(static_cast<uint64_t>(::getpid()), kRelaxed);
  page->magic.store(wire::kStatusMagic, kRelaxed);
  auto file = PublishedFile::create(path, access, bytes_of(*page));
  if (!file) {
    return file.error();
  }
  return StatusPageWriter(*std::move(file), std::move(page));
}

void StatusPageWriter::write(int64_t now_ns) {
  written_ns_ = now_ns;
  changed_ = state_changed_ = false;
  file_.write(bytes_of(*page_));
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
