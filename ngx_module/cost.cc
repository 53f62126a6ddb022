#include "ngx_module/cost.h"

#include <algorithm>
#include <cmath>

#include "ngx_module/telemetry.h"

namespace penstock {
namespace {

using http::BodyField;

// More than any limit holds, and far from overflow when limits add it up.
constexpr double kMostCost = 1e15;

enum Known : size_t {
  kMaxTokens,
  kMaxCompletionTokens,
  kAnswers,
  kPrompt,
  kMessages,
  kInput,
  kKnown
};
constexpr std::string_view kKnownNames[kKnown] = {"max_tokens", "max_completion_tokens", "n",
                                                  "prompt",     "messages",              "input"};

// The names to look for: those above, and those of the location's formulas.
class Names {
 public:
  explicit Names(const LocConf& loc) noexcept {
    for (const std::string_view name : kKnownNames) {
      names_[count_++] = name;
    }
    for (const CostFormula* cost : loc.costs) {
      for (const std::string_view name : cost->formula.names()) {
        if (index_of(name) == count_ && count_ < http::BodyFields::kMaxFields) {
          names_[count_++] = name;
        }
      }
    }
  }
  std::span<const std::string_view> all() const noexcept { return {names_, count_}; }
  size_t index_of(std::string_view name) const noexcept {
    return static_cast<size_t>(std::find(names_, names_ + count_, name) - names_);
  }

 private:
  std::string_view names_[http::BodyFields::kMaxFields];
  size_t count_ = 0;
};

// The body's fields, and those that action=degrade has put in their place.
class Fields {
 public:
  explicit Fields(const Names& names) noexcept : body_(names.all()), replaced_(names.all()) {}
  // False if the body could not be read.
  bool read(ngx_http_request_t* r, const RequestState& state) noexcept {
    replaced_.feed(view(state.replace));
    return read_body_fields(r, body_);
  }
  BodyField operator[](size_t i) const noexcept {
    const BodyField mine = body_[i];
    BodyField other = replaced_[i];
    if (i == kMaxTokens || i == kMaxCompletionTokens) {
      // Two names of one thing, which is only ever lowered (PROTOCOL.md, override).
      if (is_missing(other) && !is_missing(mine)) {
        other = replaced_[kMaxTokens + kMaxCompletionTokens - i];
      }
      if (http::number_of(mine) < http::number_of(other)) {
        return mine;
      }
    }
    return is_missing(other) ? mine : other;
  }

 private:
  static bool is_missing(const BodyField& field) noexcept {
    return field.type == BodyField::Type::kMissing;
  }

  http::BodyFields body_;
  http::BodyFields replaced_;
};

// A whole number of at least 0 that the body has, or `otherwise`.
double number_or(const BodyField& field, double otherwise) noexcept {
  const double number =
      field.type == BodyField::Type::kNumber ? http::number_of(field) : std::nan("");
  return number >= 0 ? number : otherwise;
}

uint64_t counted(double amount, Unit unit) noexcept {
  return static_cast<uint64_t>(
      std::ceil(std::min(amount * static_cast<double>(scale_of(unit)), kMostCost)));
}

// What has a body may use tokens and GPU time: it is reckoned at one at least, so that there is a
// charge to settle.
void set_cost(RequestState& state, Unit unit, double amount, double asked, bool body) noexcept {
  const auto i = static_cast<size_t>(unit);
  const uint64_t least = body && unit != Unit::kRequests ? 1 : 0;
  state.cost[i] = std::max(counted(amount, unit), least);
  state.asked[i] = counted(asked, unit);
}

void reckon_by_habit(const Fields& fields, const Estimate& usual, bool body,
                     RequestState& state) noexcept {
  state.prompt_bytes = fields[kPrompt].bytes + fields[kMessages].bytes + fields[kInput].bytes;
  if (!body) {
    return;
  }
  const double asked =
      number_or(fields[kMaxCompletionTokens], number_or(fields[kMaxTokens], std::nan("")));
  const bool told = !std::isnan(asked);
  const double answers = std::max(1.0, number_or(fields[kAnswers], 1));
  const double prompt =
      std::ceil(static_cast<double>(state.prompt_bytes) / usual.bytes_per_token);
  set_cost(state, Unit::kTokens, prompt + (told ? asked : usual.completion_tokens) * answers,
           prompt + (told ? asked : 0) * answers, body);
  set_cost(state, Unit::kGpu, usual.gpu_ms / 1000, 0, body);
}

// A sentence if the formula has no answer for this body.
std::string_view apply(const CostFormula& cost, const Names& names, const Fields& fields,
                       bool body, RequestState& state) noexcept {
  double values[limit::Formula::kMaxNames];
  size_t count = 0;
  for (const std::string_view name : cost.formula.names()) {
    const size_t at = names.index_of(name);
    values[count++] = at < names.all().size() ? http::number_of(fields[at]) : std::nan("");
  }
  double amount = cost.formula.evaluate({values, count});
  if (!(amount >= 0)) {
    if (body) {
      return "What this request would cost cannot be told: a field that its cost depends on is "
             "missing or out of range.";
    }
    amount = 0;
  }
  set_cost(state, cost.unit, amount, amount, body);
  return {};
}

}  // namespace

std::string_view reckon(ngx_http_request_t* r, RequestState& state) noexcept {
  if (state.costed) {
    return {};
  }
  state.costed = true;
  const LocConf& loc = *loc_conf(r);
  const Names names(loc);
  Fields fields(names);
  const bool body = state.body_read && r->request_body != nullptr &&
                    r->request_body->bufs != nullptr;
  if (body && !fields.read(r, state)) {
    return "The request's body could not be read.";
  }
  reckon_by_habit(fields, estimate_of(*main_conf(r), model_of(r, state)), body, state);
  for (const CostFormula* cost : loc.costs) {
    if (const std::string_view fault = apply(*cost, names, fields, body, state); !fault.empty()) {
      return fault;
    }
  }
  return {};
}

}  // namespace penstock
