#include "worker/queue/api/audit.h"

#include "shared/http/query.h"
#include "worker/queue/text/log.h"

namespace penstock::queue {
namespace {

constexpr uint64_t kForbidden = 403;

std::string_view outcome_of(uint64_t status) {
  return status == 0 ? "unknown" : status < 300 ? "done" : status < 500 ? "refused" : "failed";
}

}  // namespace

Order order_of(uint64_t id, const wire::Ask& ask) {
  std::string_view object = ask.path;
  std::string_view deed = ask.method;
  if (ask.method == "DELETE" && object.starts_with("/jobs/")) {
    const auto query = http::Query::parse(ask.query);  // as the one who does it reads it
    deed = query && query->get("purge") ? "purge" : "cancel";
  } else if (ask.method == "DELETE" && object.starts_with("/dead/")) {
    deed = "drop";
  } else if (const size_t slash = object.rfind('/');
             ask.method == "POST" && slash != object.npos && slash + 1 < object.size()) {
    deed = object.substr(slash + 1);
    object = object.substr(0, slash);
  }
  return {.id = id,
          .by = std::string(ask.owner),
          .deed = std::string(deed),
          .object = std::string(object).append(ask.query.empty() ? "" : "?").append(ask.query)};
}

void Audit::told(const Credentials& who, const Order& order, uint64_t status, int64_t now_ns) {
  const bool stranger = status == kForbidden;
  if (stranger && !refused_.admits(now_ns)) {
    return;
  }
  const auto left_out = static_cast<int64_t>(stranger ? refused_.take_left_out() : 0);
  const auto number = [](std::string_view name, int64_t value) {
    return value == 0 ? LogField(name, "") : LogField(name, value);
  };
  log(status != 0 && status < 300 ? Level::kInfo : Level::kWarn, "order",
      {{"uid", static_cast<int64_t>(who.uid)},
       {"pid", static_cast<int64_t>(who.pid)},
       {"by", order.by},
       {"deed", order.deed},
       {"object", order.object},
       {"outcome", outcome_of(status)},
       number("status", static_cast<int64_t>(status)),
       number("refused_before", left_out)});
}

bool OpenOrders::next_answer(std::string_view& frames, uint64_t& id, uint64_t& status) {
  const wire::Limits any{.submit_bytes = UINT32_MAX, .other_bytes = UINT32_MAX};
  for (;;) {
    const wire::Decoded decoded = wire::decode(frames, any);
    if (decoded.kind != wire::Decoded::kFrame) {
      return false;
    }
    frames.remove_prefix(decoded.consumed);
    id = decoded.frame.header.id;
    if (wire::Head head; decoded.frame.header.type == wire::FrameType::kHead &&
                         wire::parse(decoded.frame.payload, head) == nullptr) {
      status = head.status;
      return true;
    }
    if (wire::Failed failed; decoded.frame.header.type == wire::FrameType::kFailed &&
                             wire::parse(decoded.frame.payload, failed) == nullptr) {
      status = failed.status;
      return true;
    }
  }
}

}  // namespace penstock::queue
