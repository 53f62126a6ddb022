#include "worker/queue/shared_jobs/newcomer.h"

#include "shared/base/clock.h"
#include "shared/wire/message_codec.h"

namespace penstock::queue {
namespace {

// The tags are the store's, not the wire's.
struct Kept {
  static constexpr wire::FrameType kType = wire::FrameType::kOver;
  std::string_view queue, id, lane, key, key_is;
  uint64_t owner = 0;
  int64_t priority = 0;
  uint64_t cost = 0, weight = 0;
  int64_t not_before_us = 0, came_us = 0, deadline_us = 0, ends_by_us = 0, key_ms = 0;
  std::string_view listed;
  uint64_t marks = 0;
  template <typename V>
  void visit(V&& v) {
    v(1, queue), v(2, id), v(3, lane), v(4, key), v(5, key_is), v(6, owner), v(7, priority);
    v(8, cost), v(9, weight), v(10, not_before_us), v(11, came_us), v(12, deadline_us);
    v(13, ends_by_us), v(14, key_ms), v(15, listed), v(16, marks);
  }
};

}  // namespace

SharedOrder::Job Newcomer::as_job() const {
  SharedOrder::Job all = job;
  all.id = id;
  all.lane = lane;
  all.body = body;
  all.key = key;
  all.key_is = key_is;
  all.instead_of = instead_of;
  all.listed = listed;
  all.home = home;
  return all;
}

std::string encode(const Newcomer& newcomer, std::string_view queue) {
  const SharedOrder::Job& job = newcomer.job;
  std::string bytes;
  wire::append(bytes, 0,
               Kept{.queue = queue,
                    .id = newcomer.id,
                    .lane = newcomer.lane,
                    .key = newcomer.key,
                    .key_is = newcomer.key_is,
                    .owner = job.owner,
                    .priority = job.priority,
                    .cost = job.cost,
                    .weight = job.weight,
                    .not_before_us = job.not_before_us,
                    .came_us = realtime_ns() / kNsPerUs,
                    .deadline_us = job.deadline_us,
                    .ends_by_us = job.ends_by_us,
                    .key_ms = job.key_ms,
                    .listed = newcomer.listed,
                    .marks = job.marks});
  return bytes.append(newcomer.body);
}

bool decode(std::string_view bytes, Newcomer& newcomer, std::string& queue) {
  const wire::Decoded decoded = wire::decode(bytes, {});
  Kept kept;
  if (decoded.kind != wire::Decoded::kFrame || decoded.frame.header.type != Kept::kType ||
      wire::parse(decoded.frame.payload, kept) != nullptr) {
    return false;
  }
  queue = kept.queue;
  newcomer = {.id = std::string(kept.id),
              .lane = std::string(kept.lane),
              .body = std::string(bytes.substr(decoded.consumed)),
              .key = std::string(kept.key),
              .key_is = std::string(kept.key_is),
              .instead_of = {},
              .listed = std::string(kept.listed),
              .home = {},
              .job = {.owner = kept.owner,
                      .priority = kept.priority,
                      .cost = kept.cost,
                      .weight = kept.weight,
                      .not_before_us = kept.not_before_us,
                      .came_us = kept.came_us,
                      .deadline_us = kept.deadline_us,
                      .ends_by_us = kept.ends_by_us,
                      .key_ms = kept.key_ms,
                      .marks = static_cast<uint8_t>(kept.marks)},
              .promised = true};
  return !newcomer.id.empty();
}

}  // namespace penstock::queue
