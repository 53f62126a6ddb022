#include "ngx_module/admit/cost.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "ngx_module/conf/text.h"
#include "ngx_module/request/telemetry.h"

namespace penstock {
namespace {

using http::BodyField;
using enum Body::KnownField;

// More than any limit holds, and far from overflow when limits add it up.
constexpr double kMostCost = 1e15;

bool is_missing(const BodyField& field) noexcept { return field.type == BodyField::Type::kMissing; }

// The body's fields, and those that action=degrade has put in their place.
class Fields {
 public:
  // Most are as they were sent: then no names are looked for.
  Fields(const MainConf& main, const Body& body, const RequestState& state) noexcept
      : body_(body),
        as_sent_(state.replace.len == 0),
        replaced_({main.body_fields.begin(), as_sent_ ? 0 : main.body_fields.size()}) {
    replaced_.feed(view(state.replace));
  }
  BodyField operator[](size_t i) const noexcept {
    const BodyField mine = body_[i];
    if (as_sent_) {
      return mine;
    }
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
  const Body& body_;
  const bool as_sent_;
  http::BodyFields replaced_;
};

// A number of at least 0 that the body has, or `otherwise`.
double number_or(const BodyField& field, double otherwise) noexcept {
  const double number =
      field.type == BodyField::Type::kNumber ? http::number_of(field) : std::nan("");
  return number >= 0 ? number : otherwise;
}

// What is no number, as 0 times infinity, is the most there is.
uint64_t counted(double amount, Unit unit) noexcept {
  const double count = std::ceil(amount * static_cast<double>(scale_of(unit)));
  return static_cast<uint64_t>(count < kMostCost ? count : kMostCost);
}

// What has a body may use tokens and GPU time: it is reckoned at one at least, so that there is a
// charge to settle.
void set_cost(RequestState& state, Unit unit, double amount, double asked, bool body) noexcept {
  const auto i = static_cast<size_t>(unit);
  const uint64_t least = body && unit != Unit::kRequests ? 1 : 0;
  state.cost[i] = std::max(counted(amount, unit), least);
  state.asked[i] = counted(asked, unit);
}

// The bytes of its text, and how many pictures and sounds it has.
void weigh_prompt(const Fields& fields, uint64_t files, uint64_t each,
                  RequestState& state) noexcept {
  state.prompt_bytes = 0;
  uint64_t media = files;
  for (const size_t i : {kPrompt, kMessages, kInput}) {
    const BodyField field = fields[i];
    state.prompt_bytes += field.bytes - field.media_bytes;
    media += field.media;
  }
  state.media_tokens = media * each;
}

void reckon_by_habit(const Fields& fields, const Estimate& usual, bool body,
                     RequestState& state) noexcept {
  if (!body) {
    return;
  }
  const double asked =
      number_or(fields[kMaxCompletionTokens], number_or(fields[kMaxTokens], std::nan("")));
  const bool told = !std::isnan(asked);
  const double answers = std::max(1.0, number_or(fields[kAnswers], 1));
  const double prompt = std::ceil(static_cast<double>(state.prompt_bytes) / usual.bytes_per_token) +
                        static_cast<double>(state.media_tokens);
  set_cost(state, Unit::kTokens, prompt + (told ? asked : usual.completion_tokens) * answers,
           (told ? asked : 0) * answers, body);
  set_cost(state, Unit::kGpu, usual.gpu_ms / 1000, 0, body);
}

Fault not_a_number(ngx_http_request_t* r, std::string_view name) noexcept {
  ngx_str_t field = str(name);
  return {view(print(r->pool,
                     "The field \"%V\" must be a number, and not a negative one: what this request "
                     "costs depends on it.",
                     &field)),
          name};
}

// The formula's default stands in for a field that is not there, but not for one that the engine
// may read otherwise.
Fault apply(ngx_http_request_t* r, const CostFormula& cost, const Fields& fields, bool body,
            RequestState& state) noexcept {
  double values[limit::Formula::kMaxNames];
  size_t count = 0;
  for (const std::string_view name : cost.formula->names()) {
    const BodyField field = fields[place_of(*main_conf(r), name)];
    const double value = http::number_of(field);
    if (!is_missing(field) && field.type != BodyField::Type::kNull && !(value >= 0)) {
      return not_a_number(r, name);
    }
    values[count++] = value;
  }
  double amount = cost.formula->evaluate({values, count});
  if (!(amount >= 0)) {
    if (body) {
      return {.detail =
                  "What this request would cost cannot be told: a field that its cost "
                  "depends on is missing or out of range."};
    }
    amount = 0;
  }
  set_cost(state, cost.unit, amount, amount, body);
  return {};
}

// A cost that a variable tells; none, where it is empty.
Fault apply_told(ngx_http_request_t* r, const CostFormula& cost, RequestState& state) noexcept {
  std::string_view text;
  if (!cost.amount.get(r, text)) {
    return {.detail = "What this request would cost cannot be told now."};
  }
  double amount = 0;
  const char* const end = text.data() + text.size();
  const auto read = std::from_chars(text.data(), end, amount, std::chars_format::fixed);
  if (!text.empty() && (read.ec != std::errc() || read.ptr != end || !(amount >= 0))) {
    return {.detail = "What this request says that it costs must be a number of at least 0."};
  }
  set_cost(state, cost.unit, amount, amount, !text.empty());
  return {};
}

}  // namespace

Fault fault_of_body(ngx_http_request_t* r, RequestState& state) noexcept {
  if (!state.body_read || body_size(r) == 0) {
    return {};
  }
  const Body& body = body_of(r, state.search);
  if (!body.alike.empty()) {
    ngx_str_t name = str(body.alike);
    return {view(print(r->pool,
                       "A field of the body is \"%V\" in letters of another case: write it so.",
                       &name)),
            body.alike};
  }
  if (!body.is_form) {
    return {.detail =
                "The body is no multipart form that begins with the boundary of its Content-Type."};
  }
  return {};
}

Fault reckon(ngx_http_request_t* r, RequestState& state) noexcept {
  const LocConf& loc = *loc_conf(r);
  if (state.costed_in == &loc) {
    return {};
  }
  for (uint64_t* kinds : {state.cost, state.asked}) {
    std::fill_n(kinds, kUnits, 0);
    kinds[static_cast<size_t>(Unit::kRequests)] = 1;
  }
  static constexpr Body kNoBody;
  const bool has = state.body_read && body_size(r) > 0;  // a chunked one may be empty
  const Body& body = has ? body_of(r, state.search) : kNoBody;
  const MainConf& main = *main_conf(r);
  const Fields fields(main, body, state);
  weigh_prompt(fields, body.files, loc.image_cost, state);
  reckon_by_habit(fields, estimate_of(main, model_of(r, state)), has, state);
  for (const CostFormula* cost : loc.costs) {
    const Fault fault =
        cost->formula ? apply(r, *cost, fields, has, state) : apply_told(r, *cost, state);
    if (!fault.detail.empty()) {
      return fault;
    }
  }
  state.costed_in = &loc;
  return {};
}

}  // namespace penstock
