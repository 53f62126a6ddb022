#include "ngx_module/pages/order_log.h"

#include "ngx_module/conf/conf.h"
#include "ngx_module/request/who.h"
#include "shared/base/log_bound.h"

namespace penstock {
namespace {

constexpr ngx_uint_t kFirstRefusal = 400;
constexpr double kRefusedPerSecond = 5;

// As it may stand in quotes on one line; empty where memory ran out.
ngx_str_t quotable(ngx_pool_t* pool, std::string_view text) noexcept {
  auto* const from = reinterpret_cast<u_char*>(const_cast<char*>(text.data()));
  const size_t size = text.size() + ngx_escape_json(nullptr, from, text.size());
  auto* const data = static_cast<u_char*>(ngx_pnalloc(pool, size));
  if (data == nullptr) {
    return {};
  }
  ngx_escape_json(data, from, text.size());
  return {size, data};
}

}  // namespace

void log_order(ngx_http_request_t* r, const ConsoleOrder& order) noexcept {
  static LogBound refused(kRefusedPerSecond, kRefusedPerSecond);
  const ngx_uint_t level = loc_conf(r)->log_level;
  const bool done = order.status < kFirstRefusal;
  std::string_view who;
  if (level == 0 || (!done && !refused.admits(monotonic_ns())) || !describe_who(r, who)) {
    return;
  }
  const ngx_str_t by = quotable(r->pool, who);
  const ngx_str_t path = quotable(r->pool, order.path);
  const ngx_str_t args = quotable(r->pool, view(r->args));
  const ngx_str_t deed = str(order.deed);
  u_char key[sizeof " key=" + 16] = "";
  if (order.key != 0) {
    *ngx_sprintf(key, " key=%016xL", order.key) = '\0';
  }
  ngx_log_error(level, r->connection->log, 0,
                "order by=\"%V\" deed=%V object=\"%V%s%V\"%s outcome=%s status=%ui", &by, &deed,
                &path, args.len == 0 ? "" : "?", &args, key, done ? "done" : "refused",
                order.status);
}

}  // namespace penstock
