#include "ngx_module/admit/degrade.h"

#include <algorithm>

#include "ngx_module/admit/status_source.h"
#include "ngx_module/conf/text.h"
#include "ngx_module/request/telemetry.h"
#include "shared/http/json_number.h"

namespace penstock {
namespace {

constexpr std::string_view kModel = "model";

bool refused(const ChargeResult& j) noexcept { return !j.decision->admit && !j.advisory; }

// A whole or decimal number as JSON has them: 64, -0.5; not 007.
bool is_json_number(std::string_view text) noexcept {
  text.remove_prefix(text.front() == '-' ? 1 : 0);
  const size_t whole = http::after_digits(text, 0);
  if (whole == 0 || (whole > 1 && text.front() == '0')) {
    return false;
  }
  return whole == text.size() || (text[whole] == '.' && whole + 1 < text.size() &&
                                  http::after_digits(text, whole + 1) == text.size());
}

// Numbers, true and false are written as they are, anything else as a string, which then needs no
// escape.
bool is_plain_json(std::string_view value) noexcept {
  return value == "true" || value == "false" || is_json_number(value);
}

// `replace` with one more field in it.
bool add_replacement(ngx_pool_t* pool, RequestState& state, const Limit& limit) noexcept {
  const std::string_view before = view(state.replace);
  const std::string_view quote = is_plain_json(view(limit.degrade_value)) ? "" : "\"";
  auto* memory = static_cast<char*>(
      ngx_pnalloc(pool, before.size() + limit.degrade_field.len + limit.degrade_value.len + 8));
  if (memory == nullptr) {
    return false;
  }
  Text text(memory);
  text.raw(before.empty() ? "{" : before.substr(0, before.size() - 1))
      .raw(before.empty() ? "" : ",")
      .raw("\"")
      .raw(view(limit.degrade_field))
      .raw("\":")
      .raw(quote)
      .raw(view(limit.degrade_value))
      .raw(quote)
      .raw("}");
  state.replace = str({memory, static_cast<size_t>(text.at() - memory)});
  return true;
}

// What was decided is there to be told later.
bool hold(ngx_pool_t* pool, RequestState& state, Charges& charges) noexcept {
  void* const memory = ngx_palloc(pool, sizeof(Charges));
  if (memory == nullptr) {
    return false;
  }
  state.held = new (memory) Charges(charges.loc(), charges.stage());
  state.held->copy_from(charges);
  return true;
}

}  // namespace

bool may_degrade(ngx_http_request_t* r, const RequestState& state,
                 std::span<const ChargeResult> results) noexcept {
  if (!loc_conf(r)->passes || (state.body_read ? body_size(r) == 0 : !has_body(r))) {
    return false;
  }
  return std::all_of(results.begin(), results.end(), [&](const ChargeResult& j) {
    if (!refused(j)) {
      return true;
    }
    // A request for the lesser model already cannot become less.
    const bool same =
        view(j.limit->degrade_field) == kModel && view(j.limit->degrade_value) == view(state.model);
    return j.limit->action == Action::kDegrade && (j.limit->to_earlier ? may_be_earlier(r) : !same);
  });
}

// An owner that is nobody has no answers of its own.
bool may_be_earlier(ngx_http_request_t* r) noexcept {
  const LocConf& loc = *loc_conf(r);
  std::string_view owner;
  return loc.passes && r->method == NGX_HTTP_POST && loc.earlier_of != wire::Earlier::kNone &&
         (loc.earlier_of == wire::Earlier::kShared ||
          (loc.owner.get(r, owner) && !owner.empty())) &&
         queue_answers(loc);
}

bool note_earlier(ngx_http_request_t* r, RequestState& state) noexcept {
  state.outcome = Outcome::kDegraded;
  if (state.held != nullptr) {
    for (const ChargeResult& j : state.held->results()) {
      if (refused(j)) {
        count_limit(*main_conf(r), *j.bound->counter, Outcome::kDegraded, 0);
      }
    }
  }
  return state.push_answer_header(r, "Penstock-Degraded", str("earlier"));
}

bool hangs_on_model(ngx_http_request_t* r, RequestState& state,
                    std::span<const ChargeResult> results) noexcept {
  if (!may_degrade(r, state, results)) {
    return false;
  }
  for (const ChargeResult& j : results) {
    if (refused(j) && view(j.limit->degrade_field) == kModel) {
      model_of(r, state);
      return !state.model_sought && body_to_come(r, state);
    }
  }
  return false;
}

bool degrade(ngx_http_request_t* r, RequestState& state, Charges& charges) noexcept {
  if (!may_degrade(r, state, charges.results())) {
    return false;
  }
  for (const ChargeResult& j : charges.results()) {
    if (!refused(j) || state.met.has(j.limit, MetLimits::kDegraded)) {
      continue;
    }
    if (!state.met.add(j.limit, MetLimits::kDegraded)) {
      return false;
    }
    if (j.limit->to_earlier) {
      if (!hold(r->pool, state, charges)) {
        return false;
      }
      continue;  // counted once it is known what becomes of it
    }
    if (view(j.limit->degrade_field) == kModel) {
      state.model = j.limit->degrade_value;
      state.model_sought = true;
    } else if (!add_replacement(r->pool, state, *j.limit)) {
      return false;
    }
    state.costed_in = nullptr;
    count_limit(*main_conf(r), *j.bound->counter, Outcome::kDegraded, 0);
  }
  return true;
}

bool push_degraded(ngx_http_request_t* r, RequestState& state, const LocConf& loc,
                   Stage stage) noexcept {
  constexpr size_t kMost = 2 * 64 + kMaxDegradeValue + 16;  // names have 64 bytes at most
  auto* memory = static_cast<char*>(ngx_pnalloc(r->pool, kMaxLimits * kMost));
  if (memory == nullptr) {
    return false;
  }
  Text text(memory);
  for (const Limit* limit : loc.limits) {
    if (limit->to_earlier || limit->stage != stage || !state.met.has(limit, MetLimits::kDegraded)) {
      continue;
    }
    text.raw(text.at() == memory ? "" : ", ")
        .raw("\"")
        .raw(limit->tier.kind == Value::Kind::kNone ? view(limit->bounds[0].counter->rule->name)
                                                    : view(state.tier->name))
        .raw("\";")
        .raw(view(limit->degrade_field))
        .raw("=\"")
        .raw(view(limit->degrade_value))
        .raw("\"");
  }
  if (text.at() == memory) {
    return true;
  }
  if (state.degraded_header != nullptr) {
    state.degraded_header->hash = 0;  // of a location that was redirected from
  }
  state.degraded_header =
      push_header(r, "Penstock-Degraded", str({memory, static_cast<size_t>(text.at() - memory)}));
  return state.degraded_header != nullptr;
}

}  // namespace penstock
