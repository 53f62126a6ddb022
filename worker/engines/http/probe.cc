#include "worker/engines/http/probe.h"

#include <utility>

namespace penstock::http_engine {

bool Probe::step(int64_t now_ns, const std::string& key) {
  if (question_ && now_ns >= asked_ns_ + Health::kPatienceNs) {
    transfers_.stop(kId);
    ended({.error = "no answer within 5 s"}, now_ns);
  }
  Health::Question question;
  if (!question_ && health_.ask(now_ns, question)) {
    question_ = question;
    asked_ns_ = now_ns;
    head_ = {};
    body_.clear();
    Transfers::Request request{.method = "GET",
                               .url = options_.url.of(health_.path(question)),
                               .headers = options_.headers};
    if (!key.empty()) {
      request.headers.push_back(key);
    }
    transfers_.start(kId, request, *this);
  }
  return std::exchange(news_, false);
}

bool Probe::on_body(std::string_view bytes) {
  head_.close();
  body_.append(bytes.substr(0, Health::kMaxBytes - body_.size()));
  return body_.size() < Health::kMaxBytes;
}

void Probe::ended(const TransferEnd& end, int64_t now_ns) {
  const bool answered = head_.final() && (end.whole || body_.size() == Health::kMaxBytes);
  const Health::Question question = *std::exchange(question_, std::nullopt);
  answered_ns_ = asked_ns_;
  server_ = head_.server();
  health_.replied(question,
                  {.status = answered ? head_.status() : 0, .error = end.error, .body = body_},
                  now_ns);
  news_ = true;
}

}  // namespace penstock::http_engine
