// OperatorApi: a copy of the state, made while it is used. It lies in a folder of the state, the
// only place where penstockd may write; whoever asked for it takes it from there.
#include "shared/base/clock.h"
#include "worker/queue/api/operator_api.h"
#include "worker/queue/jobs/caller.h"
#include "worker/queue/store/state_copy.h"
#include "worker/queue/text/json.h"
#include "worker/queue/text/log.h"
#include "worker/queue/text/reply.h"

namespace penstock::queue {

void OperatorApi::about_backup(Asker asker, std::string_view method) {
  const auto refuse = [&](uint64_t status, std::string_view message) {
    wire::append(asker.caller.out(), asker.id,
                 wire::Failed{.status = status, .code = "invalid_request", .message = message});
  };
  Store* const store = dispatcher_.store();
  if (store == nullptr) {
    return refuse(404, "There is no `state` in penstock.yaml, so nothing to back up.");
  }
  const bool get = method == "GET";
  if (!get && backup_ == Backup::kMaking) {
    return refuse(409, "A backup is being made: wait for it.");
  }
  constexpr int64_t kTakenWithinNs = 3600 * kNsPerSec;
  const int64_t now_ns = monotonic_ns();
  if (method == "POST" && backup_ == Backup::kMade && now_ns < backup_made_ns_ + kTakenWithinNs) {
    return refuse(409,
                  "A backup is made, and somebody may be taking it: DELETE /backup forgets it.");
  }
  if (method == "POST") {
    backup_ = Backup::kMaking;
    backup_error_.clear();
    store->back_up([this](const Status& done) {
      backup_ = done ? Backup::kMade : Backup::kFailed;
      backup_made_ns_ = monotonic_ns();
      backup_error_ = done ? "" : done.error().message;
      log(done ? Level::kInfo : Level::kError,
          done ? "a copy of the state is made" : "no copy of the state: " + backup_error_);
    });
  } else if (method == "DELETE") {
    store->forget_backup();
    backup_ = Backup::kNone;
  } else if (!get) {
    return refuse(405, "A backup is begun by POST, seen by GET, and forgotten by DELETE.");
  }
  constexpr const char* kStates[] = {"none", "making", "made", "failed"};
  append_reply(asker.caller.out(), asker.id,
               {.status = 200, .content_type = kJson, .headers = "Cache-Control: no-store\n"},
               JsonObject()
                   .text("state", kStates[static_cast<size_t>(backup_)])
                   .text("folder", StateCopy::folder_of(state))
                   .text_or_null("error", backup_error_)
                   .done());
}

void OperatorApi::about_upgrade(Asker asker, std::string_view method) {
  if (method != "GET" && method != "POST") {
    return wire::append(asker.caller.out(), asker.id,
                        wire::Failed{.status = 405,
                                     .code = "method_not_allowed",
                                     .message = "An upgrade is done by POST; GET says what would "
                                                "become of it.",
                                     .headers = "Allow: GET, POST\n"});
  }
  Waiter& waiter = dispatcher_.subscribers().add(asker.caller, asker.id, Waiter::Kind::kQuestion);
  Subscribers::ask(waiter);
  upgrade(waiter, method == "GET");
}

}  // namespace penstock::queue
