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
};

const Known* known(const ngx_table_elt_t& header) noexcept {
  const char first = header.key.len == 0 ? '\0' : static_cast<char>(header.lowcase_key[0]);
  if (first != 'p' && first != 'i') {
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

}  // namespace

void JobHeaders::put(wire::Submit& submit) const noexcept {
  submit.prefer = prefer;
  submit.idempotency_key = idempotency_key;
  submit.delay = delay;
  submit.not_before = not_before;
  submit.callback = callback;
  submit.label = label;
}

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
  return whole || !bad.detail.empty();
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
