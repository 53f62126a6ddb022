#include "ngx_module/pages/key_counters.h"

#include <arpa/inet.h>

#include <algorithm>

#include "ngx_module/lease/waiting.h"
#include "ngx_module/pages/limit_report.h"
#include "ngx_module/pages/order_log.h"
#include "ngx_module/request/request.h"
#include "ngx_module/request/telemetry.h"

namespace penstock {
namespace {

constexpr size_t kOffenders = 20;

// ---- the question ----

struct Key {
  std::string_view text;
  char address_bytes[sizeof(in6_addr)];
  size_t address_size = 0;  // 0: it is no IP address

  std::string_view address() const noexcept { return {address_bytes, address_size}; }
};

void read_address(Key& key) noexcept {
  char text[INET6_ADDRSTRLEN] = {};
  if (key.text.size() >= sizeof text) {
    return;
  }
  key.text.copy(text, sizeof text - 1);
  if (inet_pton(AF_INET, text, key.address_bytes) == 1) {
    key.address_size = sizeof(in_addr);
  } else if (inet_pton(AF_INET6, text, key.address_bytes) == 1) {
    key.address_size = sizeof(in6_addr);
  }
}

// How many headers of this name there are; `value` is the last one's. `name` is in lower case.
size_t count_headers(ngx_http_request_t* r, std::string_view name,
                     std::string_view& value) noexcept {
  size_t count = 0;
  each_of<ngx_table_elt_t>(r->headers_in.headers, [&](const ngx_table_elt_t& header) noexcept {
    if (header.hash != 0 && lower_name(header) == name) {
      value = view(header.value);
      ++count;
    }
    return true;
  });
  return count;
}

struct Question {
  Key key;
  const Zone* zone = nullptr;  // nullptr: all of them
};

// NGX_DECLINED: it is read; else what the handler is to return.
ngx_int_t read_question(ngx_http_request_t* r, Question& question) noexcept {
  const size_t keys = count_headers(r, "penstock-key", question.key.text);
  if (keys != 1 || question.key.text.empty()) {
    return refuse_page(r, {.status = 400,
                           .detail = keys > 1 ? "There is more than one Penstock-Key header."
                                              : "Say whose limits in the header Penstock-Key: what "
                                                "a limit's key= comes to, such as a whole "
                                                "Authorization header or an address.",
                           .code = "invalid_request"});
  }
  read_address(question.key);
  std::string_view name;
  if (find_argument(r, "zone", name)) {
    question.zone = find_named(main_conf(r)->zones, name);
    if (question.zone == nullptr) {
      return refuse_page(
          r, {.status = 404, .detail = "There is no zone of that name.", .code = "not_found"});
    }
  }
  return NGX_DECLINED;
}

// ---- a key's counters ----

// One counter as a key has used it.
struct Standing {
  const Zone* zone;
  const Counter* counter;
  bool address;  // it is the key's binary form
  limit::Hash128 place;
  limit::Decision now;

  const Rule& rule() const noexcept { return *counter->rule; }
  bool live() const noexcept { return now.reset_ns > 0; }
};

template <typename Visit>
void visit_form(const Zone& zone, std::string_view key, bool address, const Visit& visit) noexcept {
  const limit::Hash128 hash = limit::siphash13_128(zone.key_secret, key);
  for (const Counter* counter : zone.counters) {
    const limit::Hash128 place = counter->place_of(hash);
    visit(Standing{&zone, counter, address, place, look_at(zone, counter->own.policy, place)});
  }
}

template <typename Visit>
void visit_counters(ngx_http_request_t* r, const Question& question, const Visit& visit) noexcept {
  for (const Zone* zone : main_conf(r)->zones) {
    if (question.zone != nullptr && question.zone != zone) {
      continue;
    }
    visit_form(*zone, question.key.text, false, visit);
    if (question.key.address_size != 0) {
      visit_form(*zone, question.key.address(), true, visit);
    }
  }
}

// What is shared is asked for: what this host knows may be old. NGX_OK: it is known.
ngx_int_t hear_of_shared(ngx_http_request_t* r, const Question& question) noexcept {
  for (Zone* zone : main_conf(r)->zones) {
    if (zone->sharing == nullptr) {
      continue;
    }
    PoolArray<Asked> counters;
    bool kept = true;
    visit_counters(r, question, [&](const Standing& standing) noexcept {
      const limit::Policy& policy = standing.counter->own.policy;
      if (standing.zone == zone && standing.counter->shared) {
        kept = kept && counters.push(r->pool, {&policy, standing.place}) != nullptr;
      }
    });
    const ngx_int_t rc = kept ? wait_to_hear(r, *zone, std::span(counters.begin(), counters.size()))
                              : NGX_HTTP_INTERNAL_SERVER_ERROR;
    if (rc != NGX_OK) {
      return rc;
    }
  }
  return NGX_OK;
}

bool misses_redis(ngx_http_request_t* r, const Question& question) noexcept {
  const PoolArray<Zone*>& zones = main_conf(r)->zones;
  return std::any_of(zones.begin(), zones.end(), [&](const Zone* zone) noexcept {
    return (question.zone == nullptr || question.zone == zone) && zone->sharing != nullptr &&
           !hears_redis(*zone);
  });
}

// ---- the answers ----

// By which logs and lists know the key, too; 0: there is no zone.
uint64_t hash_of(ngx_http_request_t* r, const Question& question) noexcept {
  const PoolArray<Zone*>& zones = main_conf(r)->zones;
  const Zone* zone = question.zone != nullptr || zones.empty() ? question.zone : zones[0];
  return zone == nullptr ? 0 : limit::siphash13_128(zone->key_secret, question.key.text).hi;
}

// {"key":"9f3a5c0b7d1e2f48"
void begin(Page& page, ngx_http_request_t* r, const Question& question) noexcept {
  const uint64_t hash = hash_of(r, question);
  page.raw(R"({"key":)");
  if (hash == 0) {
    page.raw("null");
  } else {
    page.raw("\"").hex(hash).raw("\"");
  }
}

void write_row(Page& page, const Standing& standing) noexcept {
  const Rule& rule = standing.rule();
  page.raw(R"({"zone":")").raw(view(standing.zone->name));
  page.raw(R"(","name":")").raw(view(rule.name));
  page.raw(R"(","unit":")").raw(label_of(rule.unit));
  page.raw(R"(","algorithm":")").raw(rule.algorithm);
  page.raw(R"(","limit":)").number(rule.amount);
  if (rule.policy.algorithm == limit::Algorithm::gcra) {
    page.raw(R"(,"burst":)");
    write_amount(page, rule, rule.policy.limit);
  }
  write_standing(page, rule, rule.policy, standing.now);
  page.raw(R"(,"live":)").raw(standing.live() ? "true" : "false");
  page.raw(R"(,"hash":")").hex(standing.place.hi);
  page.raw(R"(","key_form":")").raw(standing.address ? "address" : "text").raw("\"}");
}

ngx_int_t show_limits(ngx_http_request_t* r, const Question& question) noexcept {
  Page page(r);
  begin(page, r, question);
  page.raw(R"(,"limits":[)");
  bool first = true;
  visit_counters(r, question, [&](const Standing& standing) noexcept {
    page.raw(first ? "" : ",");
    first = false;
    write_row(page, standing);
  });
  return page.raw("]}\n").send();
}

// Forgets what is counted; true if something was.
bool forget(const Standing& standing) noexcept {
  limit::Table table = *standing.zone->table;  // a view
  return standing.live() && limit::reset_one(table, standing.counter->own.policy, standing.place);
}

ngx_int_t reset_limits(ngx_http_request_t* r, const Question& question) noexcept {
  Page page(r);
  Page kept(r);
  begin(page, r, question);
  page.raw(R"(,"reset":[)");
  bool first = true;
  bool first_kept = true;
  visit_counters(r, question, [&](const Standing& standing) noexcept {
    const bool lease = standing.rule().kind == RuleKind::kConcurrency;
    if (lease ? !standing.live() : !forget(standing)) {
      return;
    }
    bool& none = lease ? first_kept : first;
    (lease ? kept : page).raw(none ? "\"" : ",\"").raw(view(standing.rule().name)).raw("\"");
    none = false;
  });
  log_order(r, {.deed = "reset", .path = "/limits", .key = hash_of(r, question), .status = 200});
  return page.raw(R"(],"kept":[)").append(kept).raw("]}\n").send();
}

}  // namespace

ngx_int_t answer_limits(ngx_http_request_t* r) noexcept {
  ngx_int_t rc =
      check_method(r, NGX_HTTP_GET | NGX_HTTP_HEAD | NGX_HTTP_DELETE, "GET, HEAD, DELETE");
  Question question;
  if (rc == NGX_DECLINED) {
    rc = read_question(r, question);
  }
  if (rc != NGX_DECLINED) {
    return rc;
  }
  rc = hear_of_shared(r, question);
  if (rc != NGX_OK) {
    return rc;
  }
  if (r->method == NGX_HTTP_DELETE && misses_redis(r, question)) {
    log_order(r, {.deed = "reset", .path = "/limits", .key = hash_of(r, question), .status = 503});
    return refuse_page(r, {.status = 503,
                           .detail = "The Redis that these limits are shared by is away, and would "
                                     "not hear of it.",
                           .code = "busy"});
  }
  return r->method == NGX_HTTP_DELETE ? reset_limits(r, question) : show_limits(r, question);
}

ngx_int_t answer_offenders(ngx_http_request_t* r) noexcept {
  if (const ngx_int_t rc = check_method(r, NGX_HTTP_GET | NGX_HTTP_HEAD, "GET, HEAD");
      rc != NGX_DECLINED) {
    return rc;
  }
  OffenderRow rows[kOffenders];
  const size_t count = worst_offenders(*main_conf(r), rows);
  Page page(r);
  page.raw(R"({"offenders":[)");
  for (size_t i = 0; i < count; ++i) {
    page.raw(i == 0 ? R"({"key":")" : R"(,{"key":")").hex(rows[i].key);
    page.raw(R"(","limit":")").escaped(rows[i].limit);
    page.raw(R"(","refused":)").number(rows[i].refused).raw("}");
  }
  const RecentRequests recent = recent_requests(*main_conf(r));
  page.raw(R"(],"requests":{"seconds":)")
      .number(recent.seconds)
      .raw(R"(,"all":)")
      .number(recent.all);
  page.raw(R"(,"rejected":)").number(recent.rejected).raw(R"(,"busy":)").number(recent.busy);
  return page.raw("}}\n").send();
}

}  // namespace penstock
