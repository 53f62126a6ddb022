#include "ngx_module/reply/page.h"

#include "ngx_module/conf/text.h"
#include "ngx_module/reply/reply.h"

namespace penstock {
namespace {

constexpr size_t kBufferBytes = 4096;

bool forbid_storing(ngx_http_request_t* r) noexcept {
  return push_header(r, "Cache-Control", str("no-store")) != nullptr;
}

// What a page shows, or has no use for, and what its own requests are judged by. False when memory
// ran out.
bool part_limits(ngx_pool_t* pool, LocConf& loc) noexcept {
  PoolArray<Limit*> judged;
  loc.later = loc.degrades = loc.challenges = false;
  for (Limit* limit : loc.limits) {
    if ((limit->pages ? judged : loc.told).push(pool, limit) == nullptr) {
      return false;
    }
    loc.later = loc.later || (limit->pages && limit->stage == Stage::kAccess);
  }
  loc.limits = judged;
  return true;
}

}  // namespace

u_char* Page::room_for(size_t bytes) noexcept {
  if (failed_) {
    return nullptr;
  }
  if (last_ != nullptr && static_cast<size_t>(last_->buf->end - last_->buf->last) >= bytes) {
    return last_->buf->last;
  }
  if (bounded_) {
    failed_ = true;
    return nullptr;
  }
  ngx_chain_t* link = ngx_alloc_chain_link(r_->pool);
  ngx_buf_t* buf = ngx_create_temp_buf(r_->pool, ngx_max(bytes, kBufferBytes));
  failed_ = link == nullptr || buf == nullptr;
  if (failed_) {
    return nullptr;
  }
  link->buf = buf;
  link->next = nullptr;
  (last_ == nullptr ? first_ : last_->next) = link;
  last_ = link;
  return buf->last;
}

Page& Page::raw(std::string_view text) noexcept {
  if (u_char* at = room_for(text.size()); at != nullptr) {
    last_->buf->last = ngx_cpymem(at, text.data(), text.size());
  }
  return *this;
}

Page& Page::escaped(std::string_view text) noexcept {
  constexpr size_t kLongestEscape = 6;
  if (u_char* at = room_for(kLongestEscape * text.size()); at != nullptr) {
    end_at(http::escape_json(text, reinterpret_cast<char*>(at),
                             reinterpret_cast<char*>(last_->buf->end)));
  }
  return *this;
}

Page& Page::number(uint64_t number) noexcept {
  if (u_char* at = room_for(Text::kMaxDigits); at != nullptr) {
    end_at(Text(reinterpret_cast<char*>(at)).number(number).at());
  }
  return *this;
}

Page& Page::decimal(uint64_t thousandths) noexcept {
  number(thousandths / 1000);
  const uint64_t rest = thousandths % 1000;
  return rest == 0 ? *this : raw(rest < 10 ? ".00" : rest < 100 ? ".0" : ".").number(rest);
}

Page& Page::hex(uint64_t number) noexcept {
  static constexpr char kDigits[] = "0123456789abcdef";
  char text[16];
  for (char& digit : text) {
    digit = kDigits[number >> 60];
    number <<= 4;
  }
  return raw({text, sizeof text});
}

Page& Page::append(const Page& other) noexcept {
  failed_ = failed_ || other.failed_;
  if (other.first_ != nullptr) {
    (last_ == nullptr ? first_ : last_->next) = other.first_;
    last_ = other.last_;
  }
  return *this;
}

ngx_int_t Page::send() noexcept {
  if (failed_ || first_ == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  last_->buf->last_buf = r_ == r_->main ? 1 : 0;
  last_->buf->last_in_chain = 1;
  return send_page(r_, "application/json", first_);
}

ngx_int_t send_page(ngx_http_request_t* r, std::string_view type, ngx_chain_t* body) noexcept {
  if (!forbid_storing(r)) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  if (const ngx_int_t rc = ngx_http_discard_request_body(r); rc != NGX_OK) {
    return rc;
  }
  off_t bytes = 0;
  for (const ngx_chain_t* link = body; link != nullptr; link = link->next) {
    bytes += link->buf->last - link->buf->pos;
  }
  r->headers_out.status = NGX_HTTP_OK;
  r->headers_out.content_length_n = bytes;
  set_content_type(r, type);
  const ngx_int_t rc = ngx_http_send_header(r);
  return rc == NGX_ERROR || rc > NGX_OK || r->header_only ? rc : ngx_http_output_filter(r, body);
}

ngx_int_t refuse_page(ngx_http_request_t* r, const http::Problem& problem) noexcept {
  if (!forbid_storing(r)) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  // refuse_request ends the request as a phase's handler has to; Nginx ends it once more behind a
  // content handler.
  ++r->main->count;
  const ngx_int_t rc = refuse_request(r, problem);
  if (rc != NGX_DONE) {
    --r->main->count;
  }
  return rc;
}

ngx_int_t check_method(ngx_http_request_t* r, ngx_uint_t methods,
                       std::string_view allowed) noexcept {
  if ((r->method & methods) != 0) {
    return NGX_DECLINED;
  }
  if (push_header(r, "Allow", str(allowed)) == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  char detail[64];
  Text to(detail);
  to.raw("The methods here are ").raw(allowed).raw(".");
  return refuse_page(r, {.status = 405,
                         .detail = {detail, static_cast<size_t>(to.at() - detail)},
                         .code = "method_not_allowed"});
}

char* set_handler(ngx_conf_t* cf, ngx_http_handler_pt handler) noexcept {
  ngx_http_core_loc_conf_t& core = *core_conf(cf);
  if (core.handler != nullptr) {
    return refuse(cf,
                  core.handler == handler
                      ? "\"%V\" is duplicate"
                      : "\"%V\" stands where another directive answers already; give it a "
                        "location of its own",
                  &arg(cf, 0));
  }
  core.handler = handler;
  return NGX_CONF_OK;
}

char* set_page(ngx_conf_t* cf, LocConf& loc, ngx_http_handler_pt handler) noexcept {
  if (char* const refused = set_handler(cf, handler); refused != NGX_CONF_OK) {
    return refused;
  }
  loc.page = handler;
  return NGX_CONF_OK;
}

char* merge_page(ngx_conf_t* cf, const LocConf& above, LocConf& loc) noexcept {
  ngx_http_core_loc_conf_t& core = *core_conf(cf);
  if (core.noname && core.handler == nullptr && above.page != nullptr) {
    core.handler = loc.page = above.page;
    loc.quota = above.quota;
    loc.server = above.server;
    loc.watched = above.watched;
    loc.console = above.console;
    loc.asks = above.asks;
    loc.upstream.upstream = above.upstream.upstream;
  }
  if (loc.page != nullptr && core.handler != loc.page) {
    return refuse_second_answer(cf);
  }
  if (loc.page != nullptr && !part_limits(cf->pool, loc)) {
    return kConfError;
  }
  if (loc.page != nullptr && !loc.quota && loc.own_limits && !loc.told.empty()) {
    const Limit& first = *loc.told[0];
    refuse_at(cf, first.file, first.line,
              "penstock_limit does nothing beside penstock_metrics and penstock_console without "
              "pages=on; say so, or who may ask by allow and deny");
    return kConfError;
  }
  MainConf& main = *main_conf(cf);
  if ((loc.console != nullptr && main.consoles.push(cf->pool, &loc) == nullptr) ||
      (loc.quota && main.quotas.push(cf->pool, &loc) == nullptr) ||
      (loc.watched != nullptr && main.watchers.push(cf->pool, &loc) == nullptr)) {
    return kConfError;
  }
  return NGX_CONF_OK;
}

}  // namespace penstock
