#include "worker/queue/challenges/provider_answer.h"

#include <time.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "shared/http/body_fields.h"

namespace penstock::queue {
namespace {

using Type = http::BodyField::Type;

constexpr int64_t kSkewSeconds = 60;  // the provider's clock may be ahead by so much
constexpr size_t kMostReason = 100;

enum Field : size_t { kSuccess, kCodes, kHostname, kTime, kAction, kScore, kData };
constexpr std::string_view kNames[] = {"success", "error-codes", "hostname", "challenge_ts",
                                       "action",  "score",       "cdata"};

constexpr double kUsualScore = 0.5;

// What a wrong token cannot bring about.
constexpr std::string_view kNotTheCallers[] = {"invalid-input-secret", "missing-input-secret",
                                               "internal-error"};

// A token of another site brings these about, and so does a secret of another sitekey.
constexpr std::string_view kMaybeOurs[] = {"sitekey-secret-mismatch", "not-using-dummy-passcode",
                                           "invalid-keys"};

constexpr std::string_view kTheCallers[] = {"timeout-or-duplicate",
                                            "invalid-input-response",
                                            "missing-input-response",
                                            "expired-input-response",
                                            "already-seen-response",
                                            "invalid-or-already-seen-response",
                                            "bad-request",
                                            "browser-error"};

bool has_code(std::string_view body, std::string_view code) {
  return body.find("\"" + std::string(code) + "\"") != std::string_view::npos;
}

bool read_digits(std::string_view& text, size_t count, int& number) {
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + std::min(count, text.size()), number);
  const bool whole = error == std::errc() && end == text.data() + count && text.front() != '-';
  text.remove_prefix(whole ? count : 0);
  return whole;
}

bool skip(std::string_view& text, char c) {
  const bool there = text.starts_with(c);
  text.remove_prefix(there ? 1 : 0);
  return there;
}

// "2022-02-28T15:14:30.096Z", "…+00:00", "…+0000": Unix seconds.
std::optional<int64_t> read_time(std::string_view text) {
  tm parts{};
  if (!read_digits(text, 4, parts.tm_year) || !skip(text, '-') ||
      !read_digits(text, 2, parts.tm_mon) || !skip(text, '-') ||
      !read_digits(text, 2, parts.tm_mday) || !skip(text, 'T') ||
      !read_digits(text, 2, parts.tm_hour) || !skip(text, ':') ||
      !read_digits(text, 2, parts.tm_min) || !skip(text, ':') ||
      !read_digits(text, 2, parts.tm_sec)) {
    return std::nullopt;
  }
  if (skip(text, '.')) {
    text.remove_prefix(std::min(text.find_first_not_of("0123456789"), text.size()));
  }
  int hours = 0;
  int minutes = 0;
  const bool behind = text.starts_with('-');
  if (!skip(text, 'Z')) {
    text.remove_prefix(std::min<size_t>(text.size(), text.starts_with('+') || behind ? 1 : 5));
    if (!read_digits(text, 2, hours) || (skip(text, ':'), !read_digits(text, 2, minutes))) {
      return std::nullopt;
    }
  }
  if (!text.empty()) {
    return std::nullopt;
  }
  if (parts.tm_mon < 1 || parts.tm_mon > 12 || parts.tm_mday < 1 || parts.tm_mday > 31 ||
      parts.tm_hour > 23 || parts.tm_min > 59 || parts.tm_sec > 60 || hours > 23 || minutes > 59) {
    return std::nullopt;
  }
  parts.tm_year -= 1900;
  parts.tm_mon -= 1;
  const int64_t offset_s = (hours * 60 + minutes) * 60;
  return timegm(&parts) - (behind ? -offset_s : offset_s);
}

ProviderVerdict bad(std::string reason) { return {wire::Verdict::kBad, std::move(reason)}; }
ProviderVerdict unknown(std::string reason) { return {wire::Verdict::kUnknown, std::move(reason)}; }

// Codes are looked for in the whole of it. What a page chooses itself, its host, action and data,
// must not pass for one of them.
ProviderVerdict judge_failure(std::string_view body, const http::BodyFields& said) {
  const bool chosen =
      !said[kAction].text.empty() || !said[kData].text.empty() || !said[kHostname].text.empty();
  for (const std::string_view code : kNotTheCallers) {
    if (!chosen && has_code(body, code)) {
      return unknown(std::string(code));
    }
  }
  for (const std::string_view code : kMaybeOurs) {
    if (has_code(body, code)) {
      return {wire::Verdict::kBad,
              std::string(code) + ": it is another site's, or `secret_file` is of another sitekey",
              true};
    }
  }
  for (const std::string_view code : kTheCallers) {
    if (has_code(body, code)) {
      return bad(std::string(code));
    }
  }
  return bad("it is not good, for no reason that is known here");
}

// Elsewhere than with reCAPTCHA, a score may tell how bad it is.
ProviderVerdict judge_score(const ProviderConfig& provider, const http::BodyField& score) {
  if (provider.name != "recaptcha" || (score.type == Type::kMissing && !provider.least_score)) {
    return {wire::Verdict::kGood, ""};
  }
  if (score.type == Type::kMissing) {
    return {wire::Verdict::kBad, "the answer has no score; is it a v2 key?", true};
  }
  return http::number_of(score) >= provider.least_score.value_or(kUsualScore)
             ? ProviderVerdict{wire::Verdict::kGood, ""}
             : bad("its score is too low");
}

ProviderVerdict judge_success(const ProviderConfig& provider, const http::BodyFields& said,
                              int64_t now_s) {
  std::string host(said[kHostname].text);
  std::transform(host.begin(), host.end(), host.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  const auto& hosts = provider.hostnames;
  if (std::find(hosts.begin(), hosts.end(), host) == hosts.end()) {
    return bad("it is of a page of '" + host.substr(0, kMostReason) +
               "', which is none of `hostnames`");
  }
  if (!provider.action.empty() && said[kAction].text != provider.action) {
    return bad("its action is '" + std::string(said[kAction].text.substr(0, kMostReason)) + "'");
  }
  const auto solved_s = read_time(said[kTime].text);
  if (!solved_s) {
    return unknown("the answer has no challenge_ts");
  }
  if (now_s - *solved_s > provider.max_age_ns / kNsPerSec || *solved_s - now_s > kSkewSeconds) {
    return bad("it was solved too long ago, or is to be");
  }
  return judge_score(provider, said[kScore]);
}

}  // namespace

ProviderVerdict judge_answer(const ProviderConfig& provider, int status, std::string_view body,
                             int64_t now_s) {
  constexpr int kTooMany = 429;
  const bool readable = status / 100 == 2 || (status / 100 == 4 && status != kTooMany);
  http::BodyFields said(kNames);
  if (!readable || !said.feed(body) || said[kSuccess].type != Type::kBoolean) {
    return unknown("it answers " + std::to_string(status) +
                   (readable ? ", but not as siteverify does" : ""));
  }
  if (said[kSuccess].text != "true") {
    return judge_failure(body, said);
  }
  return status / 100 == 2 ? judge_success(provider, said, now_s)
                           : unknown("it answers " + std::to_string(status) + " and success");
}

}  // namespace penstock::queue
