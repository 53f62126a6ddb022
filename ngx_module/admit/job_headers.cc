#include "ngx_module/admit/job_headers.h"

#include "ngx_module/conf/text.h"
#include "shared/http/prefer.h"

namespace penstock {
namespace {

struct Known {
  std::string_view name;  // in lower case
  std::string_view shown;
  std::string_view JobHeaders::*value;
  size_t most;  // bytes
  bool list;    // may come on several lines
};

constexpr Known kKnown[] = {
    {"prefer", "Prefer", &JobHeaders::prefer, 1024, true},
    {"idempotency-key", "Idempotency-Key", &JobHeaders::idempotency_key, 300, false},
    {"penstock-delay", "Penstock-Delay", &JobHeaders::delay, 32, false},
    {"penstock-not-before", "Penstock-Not-Before", &JobHeaders::not_before, 64, false},
    {"penstock-callback", "Penstock-Callback", &JobHeaders::callback, 2048, false},
    {"penstock-label", "Penstock-Label", &JobHeaders::label, 1024, false},
    {"penstock-start-within", "Penstock-Start-Within", &JobHeaders::start_within, 32, false},
    {"penstock-finish-within", "Penstock-Finish-Within", &JobHeaders::finish_within, 32, false},
    {"cancel-after", "Cancel-After", &JobHeaders::cancel_after, 32, false},
    {"x-stainless-read-timeout", "X-Stainless-Read-Timeout", &JobHeaders::read_timeout, 32, true},
    {"penstock-events", "Penstock-Events", &JobHeaders::events, 32, false},
};

const Known* known(const ngx_table_elt_t& header) noexcept {
  const char first = header.key.len == 0 ? '\0' : static_cast<char>(header.lowcase_key[0]);
  if (first != 'p' && first != 'i' && first != 'c' && first != 'x') {
    return nullptr;
  }
  const std::string_view name = lower_name(header);
  for (const Known& each : kKnown) {
    if (name == each.name) {
      return &each;
    }
  }
  return nullptr;
}

// Calls visit(known, value) for each; stops when it says false.
template <class Visit>
bool for_each(ngx_http_request_t* r, const Visit& visit) noexcept {
  return each_of<ngx_table_elt_t>(r->headers_in.headers,
                                  [&](const ngx_table_elt_t& header) noexcept {
                                    const Known* each = known(header);
                                    return each == nullptr || visit(*each, view(header.value));
                                  });
}

// "<name> <words>"; empty when memory ran out.
std::string_view say(ngx_pool_t* pool, std::string_view name, std::string_view words) noexcept {
  auto* out = static_cast<char*>(ngx_pnalloc(pool, name.size() + words.size()));
  if (out == nullptr) {
    return {};
  }
  const Text text = Text(out).raw(name).raw(words);
  return {out, static_cast<size_t>(text.at() - out)};
}

std::string_view say_too_long(ngx_pool_t* pool, const Known& header) noexcept {
  char words[64];
  const Text text =
      Text(words).raw(" is too long; at most ").number(header.most).raw(" bytes are taken.");
  return say(pool, header.shown, {words, static_cast<size_t>(text.at() - words)});
}

bool join(ngx_pool_t* pool, std::string_view& list, std::string_view more) noexcept {
  constexpr std::string_view kComma = ", ";
  auto* out = static_cast<char*>(ngx_pnalloc(pool, list.size() + kComma.size() + more.size()));
  if (out == nullptr) {
    return false;
  }
  const Text text = Text(out).raw(list).raw(kComma).raw(more);
  list = {out, static_cast<size_t>(text.at() - out)};
  return true;
}

// False when memory ran out, or it is bad.
bool take(ngx_pool_t* pool, const Known& header, std::string_view text, std::string_view& value,
          BadHeader& bad) noexcept {
  const bool again = !value.empty();
  if (again && !header.list) {
    bad = {say(pool, header.shown, " was sent twice; send it once."), header.shown};
    return false;
  }
  if (text.empty() && !header.list) {
    bad = {say(pool, header.shown, " is empty; give it a value, or leave it out."), header.shown};
    return false;
  }
  // Before it is joined: many lines would otherwise be copied many times.
  if (value.size() + text.size() > header.most) {
    bad = {say_too_long(pool, header), header.shown};
    return false;
  }
  if (again) {
    return text.empty() || join(pool, value, text);
  }
  value = text;
  return true;
}

// 0 is none.
uint64_t least(uint64_t a, uint64_t b) noexcept { return a == 0 || (b != 0 && b < a) ? b : a; }

constexpr std::string_view kHowToSay =
    " is a number of seconds above 0, as in 30 or 0.5, ten years at most.";

// Makes numbers of what was sent. What an SDK says of itself is no mistake of the caller's: if it
// is none it is passed over.
bool read(ngx_pool_t* pool, JobHeaders& headers, BadHeader& bad) noexcept {
  const struct {
    std::string_view name;
    std::string_view text;
    uint64_t& ms;
  } each[] = {{"Penstock-Start-Within", headers.start_within, headers.start_within_ms},
              {"Penstock-Finish-Within", headers.finish_within, headers.finish_within_ms},
              {"Cancel-After", headers.cancel_after, headers.finish_within_ms}};
  for (const auto& [name, text, ms] : each) {
    const auto within_ms = http::parse_within_ms(text);
    if (!text.empty() && !within_ms) {
      bad = {say(pool, name, kHowToSay), name};
      return false;
    }
    ms = least(ms, within_ms.value_or(0));
  }
  headers.read_timeout_ms = http::parse_within_ms(headers.read_timeout).value_or(0);
  if (!headers.events.empty() && headers.events != "queue") {
    bad = {"Penstock-Events takes queue.", "Penstock-Events"};
    return false;
  }
  return true;
}

}  // namespace

void JobHeaders::put(wire::Submit& submit, bool waits) const noexcept {
  submit.prefer = prefer;
  submit.idempotency_key = idempotency_key;
  submit.delay = delay;
  submit.not_before = not_before;
  submit.callback = callback;
  submit.label = label;
  submit.start_within_ms = start_within_ms;
  submit.finish_within_ms = done_within_ms(waits);
}

uint64_t JobHeaders::done_within_ms(bool waits) const noexcept {
  return least(finish_within_ms, waits ? read_timeout_ms : 0);
}

bool JobHeaders::may_outlive() const noexcept { return !idempotency_key.empty() || want_promise(); }

bool JobHeaders::want_promise() const noexcept {
  return !delay.empty() || !not_before.empty() || !callback.empty() ||
         http::parse_prefer(prefer).respond_async;
}

bool find_job_headers(ngx_http_request_t* r, const JobHeaders*& found, BadHeader& bad) noexcept {
  JobHeaders* headers = nullptr;
  const bool whole = for_each(r, [&](const Known& header, std::string_view text) noexcept {
    if (headers == nullptr && (headers = make<JobHeaders>(r->pool)) == nullptr) {
      return false;
    }
    return take(r->pool, header, text, headers->*header.value, bad);
  });
  found = headers;
  return (whole && (headers == nullptr || read(r->pool, *headers, bad))) || !bad.detail.empty();
}

bool may_not_wait(ngx_http_request_t* r) noexcept {
  return !for_each(r, [](const Known& header, std::string_view) noexcept {
    return header.value == &JobHeaders::prefer || header.value == &JobHeaders::callback;
  });
}

bool asks_for_promise(ngx_http_request_t* r) noexcept {
  return !for_each(r, [](const Known& header, std::string_view text) noexcept {
    return header.value != &JobHeaders::callback &&
           !(header.value == &JobHeaders::prefer && http::parse_prefer(text).respond_async);
  });
}

}  // namespace penstock
