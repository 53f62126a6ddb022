// Answer: how it ends.
#include <cstdio>

#include "shared/base/clock.h"
#include "shared/base/utf8.h"
#include "worker/engines/http/answer.h"
#include "worker/engines/http/retry_after.h"
#include "worker/pool/withhold.h"

namespace penstock::http_engine {
namespace {

constexpr size_t kShownBytes = 200;  // of a body, to the operator
constexpr std::string_view kDone = "data: [DONE]\n\n";

std::string shown(std::string_view text) {
  return one_line(text.substr(0, utf8_complete_prefix(text.substr(0, kShownBytes))));
}

std::string_view without_query(std::string_view url) { return url.substr(0, url.find('?')); }

std::string milliseconds(int64_t ns) { return std::to_string(ns / kNsPerMs) + " ms"; }

Failure failure_of(std::string message, bool retryable, int status = 502) {
  return {.status = status,
          .code = "engine_failed",
          .message = std::move(message),
          .retryable = retryable};
}

}  // namespace

Ending Answer::end(const TransferEnd& transfer, int64_t now_ns) {
  now_ns_ = now_ns;
  if (splitter_ && transfer.whole) {  // else what is held is torn
    tail_open_ = splitter_->held() > 0;
    splitter_->end();
  }
  if (too_large_) {
    return too_large();
  }
  if (header_flood_ || !head_.final() || !not_http_.empty()) {
    return end_early(transfer);
  }
  if (phase_ == Phase::kHead && !begin_body()) {  // there was none
    return too_large();
  }
  if (expired_ != Timer::kNone && !ended_ && !error_ && expired_ != Timer::kAfterFinish) {
    return expired();
  }
  switch (phase_) {
    case Phase::kRefusal:
      return refuse();
    case Phase::kEvents:
    case Phase::kLines:
      return end_stream(transfer);
    case Phase::kSniffing:
    case Phase::kJson:
      return end_json(transfer);
    default:
      return end_bytes(transfer);
  }
}

// Before there was an answer, or anything like one.
Ending Answer::end_early(const TransferEnd& transfer) {
  if (header_flood_) {
    return attempt("more than " + std::to_string(Head::kMaxBytes) + " bytes of headers");
  }
  if (!not_http_.empty()) {
    const std::string why = "it is not HTTP: " + without_asked(not_http_);
    Ending ending = attempt(why);
    ending.verdict = Verdict{.out = true};
    ending.why = why;
    return ending;
  }
  if (expired_ != Timer::kNone) {
    return expired();
  }
  if (!transfer.connected) {
    return returned("no connection: " + transfer.error,
                    {.fate = Fate::kReturned, .level = LogLevel::kWarn, .out = true});
  }
  return attempt(std::string(transfer.heard ? "cut in its head" : "no answer") + ": " +
                 transfer.error);
}

Ending Answer::end_stream(const TransferEnd& transfer) {
  if (error_ && !committed_) {
    return judge(error_->status == 0 ? 500 : error_->status, error_, true);
  }
  if (error_) {
    say(LogLevel::kWarn, "an error in its stream: " + without_asked(error_->message));
    return {failure_of("The model's server failed in the middle: " + shown(error_->message),
                       error_->status == 0 || error_->status >= 500 || error_->status == 429)};
  }
  if (!committed_) {
    return attempt(std::string(transfer.whole ? "ended" : "cut") + " before the first event" +
                   (transfer.whole ? "" : ": " + transfer.error));
  }
  if (excess_) {
    say(LogLevel::kInfo, "it said more after its end; the connection is closed");
  }
  const bool finished_well = ended_ || (choices_ && finished());
  if (!finished_well && !transfer.whole) {
    return cut_short("cut after " + std::to_string(parts_) + " events: " + transfer.error);
  }
  if (!finished_well && must_end_) {
    return cut_short("it ended with no finish reason after " + std::to_string(parts_) + " events");
  }
  if (choices_ && !done_told_ && phase_ == Phase::kEvents) {
    pass(std::string(tail_open_ ? "\n\n" : "").append(kDone));
  }
  return done();
}

Ending Answer::end_json(const TransferEnd& transfer) {
  if (committed_) {
    if (!transfer.whole) {
      return cut_short("cut after " + std::to_string(body_bytes_) + " bytes: " + transfer.error);
    }
    note_fields();
    return done();
  }
  const bool json = held_.empty() || held_.front() == '{' || held_.front() == '[';
  if (!transfer.whole && (json || !call_.reads_json)) {
    const std::string of =
        head_.content_length() < 0 ? "" : " of " + std::to_string(head_.content_length());
    return attempt("cut after " + std::to_string(body_bytes_) + of + " bytes: " + transfer.error);
  }
  const Told told = shared_.tell_tale.answer(held_);
  if (call_.reads_json && !told.readable) {
    return attempt("its answer is not JSON, but \"" + head_.content_type() +
                   "\": " + without_asked(held_));
  }
  if (call_.reads_json && told.error) {
    return judge(told.error->status == 0 ? 500 : told.error->status, told.error, true);
  }
  note(told);
  commit(head_.status(), static_cast<int64_t>(held_.size()));
  return pass(std::exchange(held_, {})) ? done() : too_large();
}

// What was seen of an answer that was too long to be held.
void Answer::note_fields() {
  std::string json = "{\"\":0";
  for (const char* const name : {"usage", "details", "done", "eval_count", "prompt_eval_count"}) {
    const TopField* const field = fields_.find(name);
    if (field != nullptr && !field->text.empty()) {
      json.append(",\"").append(name).append("\":").append(field->text);
    }
  }
  const auto told = shared_.tell_tale.answer(json + "}");
  counted_.told = told.usage;
  counted_.completion_bytes = static_cast<uint64_t>(body_bytes_);
}

Ending Answer::end_bytes(const TransferEnd& transfer) {
  if (!transfer.whole) {
    const std::string why =
        "cut after " + std::to_string(body_bytes_) + " bytes: " + transfer.error;
    return committed_ ? cut_short(why) : attempt(why);
  }
  commit(head_.status(), 0);
  return done();
}

// An answer of status 3xx to 5xx.
Ending Answer::refuse() {
  const Told told = shared_.tell_tale.answer(held_);
  return judge(head_.status(), told.error, false);
}

Ending Answer::judge(int status, const std::optional<ToldError>& error, bool in_200) {
  const auto rest_ns = read_retry_after(head_.retry_after(), head_.retry_after_ms(), realtime_ns());
  const Verdict verdict = verdict_of(status, error, rest_ns);
  std::string what = std::to_string(status) + (in_200 ? " in a 200" : "");
  if (error) {
    what += " " + error->code + " " + error->type + ": " + without_asked(error->message);
  } else if (!held_.empty()) {
    what +=
        " (" + (content_type_.empty() ? "no type" : content_type_) + "): " + without_asked(held_);
  }
  if (!head_.retry_after().empty() && !rest_ns) {
    what += "; Retry-After is no time: " + shown(head_.retry_after());
  }
  if (verdict.fate == Fate::kReturned) {
    return returned(what, verdict);
  }
  if (verdict.fate == Fate::kOver) {
    say(verdict.level, what + ", to " + without_asked(without_query(head_.location())) +
                           "; it is not followed: set the url to where it is to go");
    return {failure_of("The model's server sent a redirect, which is not followed.", false)};
  }
  if (verdict.fate == Fate::kTold) {
    say(verdict.level, what);
    const bool wrapped = in_200 && phase_ != Phase::kJson && phase_ != Phase::kSniffing;
    return wrapped ? tell(status, "application/json", "{\"error\":" + error->json + "}")
                   : tell(status, content_type_, held_);
  }
  say(verdict.level, what);
  const std::string said = error && !error->message.empty() ? ": " + shown(error->message) : ".";
  return {failure_of("The model's server answered " + std::to_string(status) + said, true)};
}

// The caller's own answer, though it is no good one.
Ending Answer::tell(int status, std::string_view type, std::string_view body) {
  const std::string whole(body);
  content_type_ = type;
  held_.clear();
  commit(status, static_cast<int64_t>(whole.size()));
  pass(whole);
  return {Usage{}};
}

Ending Answer::done() {
  std::string doubt;
  const Usage usage = settle(counted_, shared_.sizes, doubt);
  if (!doubt.empty()) {
    const bool in_part = counted_.told && !counted_.told->lies;
    say(in_part ? LogLevel::kInfo : LogLevel::kWarn, doubt);
  }
  return {usage};
}

Ending Answer::cut_short(const std::string& why, bool retryable) {
  say(LogLevel::kWarn, why);
  return {failure_of("The model's server broke off its answer.", retryable)};
}

Ending Answer::attempt(const std::string& why) {
  say(LogLevel::kWarn, why);
  return {failure_of("The model's server did not answer as it should.", true)};
}

Ending Answer::returned(const std::string& why, const Verdict& verdict) {
  Failure failure = failure_of("The model's server has no room.", true, 503);
  failure.returned = true;
  return {std::move(failure), verdict, why};
}

Ending Answer::too_large() {
  const int status = head_.status();
  if (phase_ == Phase::kRefusal && status < 500 && status >= 400) {
    say(LogLevel::kWarn, std::to_string(status) + " with a body that is too large: more than " +
                             std::to_string(shared_.options.max_error_body_bytes) + " bytes");
    return {Failure{.status = status,
                    .code = "invalid_request",
                    .message = "The model's server refused the request (status " +
                               std::to_string(status) + "), with too long a reason to be shown."}};
  }
  if (phase_ == Phase::kRefusal) {
    held_.clear();
    return judge(status, std::nullopt, false);
  }
  say(LogLevel::kWarn, "its answer is too large: more than max_answer, " +
                           std::to_string(shared_.options.max_answer_bytes) + " bytes");
  return {failure_of("The model's server sent an answer that is too large.", false)};
}

// Before the first event the job goes back, and the url rests.
Ending Answer::expired() {
  const Timeouts& timeouts = shared_.options.timeouts;
  const bool total = expired_ == Timer::kTotal;
  if (total) {
    const std::string why = "not done within " + milliseconds(timeouts.total_ns) + " (total)";
    return committed_ ? cut_short(why) : attempt(why);
  }
  if (committed_) {
    const bool idle = expired_ == Timer::kIdle;
    return cut_short(idle ? "silent for " + milliseconds(timeouts.idle_ns) + " (idle)"
                          : "no next event within " + milliseconds(timeouts.event_idle_ns) +
                                " (event_idle)");
  }
  const std::string why =
      expired_ == Timer::kIdle
          ? "no first event: silent for " + milliseconds(timeouts.idle_ns) + " (idle)"
          : "no first event within " + milliseconds(timeouts.first_event_ns) + " (first_event)";
  return returned(why, {.fate = Fate::kReturned, .level = LogLevel::kWarn});
}

// What the server says, for the log: without what it was asked, and without keys.
std::string Answer::without_asked(std::string_view said) const {
  std::vector<std::string_view> secrets = call_.body;
  secrets.insert(secrets.end(), shared_.options.headers.begin(), shared_.options.headers.end());
  secrets.emplace_back(shared_.key);
  return withhold(shown(said), secrets);
}

void Answer::say(LogLevel level, const std::string& what) const {
  shared_.log(level, call_.shown + ": " + what);
}

}  // namespace penstock::http_engine
