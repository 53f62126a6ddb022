// Page: the JSON that a location answers by itself (penstock_quota, penstock_console), written into
// buffers of the request's pool as far as it goes.
//
//   Page page(r);
//   page.raw(R"({"tier":")").escaped(name).raw("\"}\n");
//   return page.send();
//
// A page belongs to one moment and one caller: every answer says Cache-Control: no-store.
#pragma once

#include "ngx_module/nginx.h"
#include "shared/http/problem.h"

namespace penstock {

struct LocConf;

class Page {
 public:
  // REQUIRES: r outlives it.
  explicit Page(ngx_http_request_t* r) noexcept : r_(r) {}
  // The same into this buffer, and no further. It outlives the page.
  Page(ngx_http_request_t* r, ngx_buf_t& only) noexcept
      : r_(r), first_(&only_), last_(&only_), bounded_(true) {
    only_.buf = &only;
    only_.next = nullptr;
  }

  // What is appended. Once memory ran out nothing more is, and send() says so.
  Page& raw(std::string_view text) noexcept;
  Page& escaped(std::string_view text) noexcept;  // as the inside of a JSON string
  Page& number(uint64_t number) noexcept;
  // `thousandths` / 1000, with three decimals unless it is whole.
  Page& decimal(uint64_t thousandths) noexcept;
  Page& hex(uint64_t number) noexcept;       // 16 digits
  Page& append(const Page& other) noexcept;  // which is not written to any more

  // What is in the buffer of a page that has one; empty: it did not fit.
  ngx_str_t text() const noexcept {
    return failed_
               ? ngx_str_t{}
               : ngx_str_t{static_cast<size_t>(only_.buf->last - only_.buf->pos), only_.buf->pos};
  }
  // Answers the request with 200. Call it once, from a content handler, and return what it returns.
  ngx_int_t send() noexcept;

 private:
  // Where `bytes` more have room in one piece; nullptr when memory ran out.
  u_char* room_for(size_t bytes) noexcept;
  void end_at(const char* end) noexcept {
    last_->buf->last = reinterpret_cast<u_char*>(const_cast<char*>(end));
  }

  ngx_http_request_t* r_;
  ngx_chain_t* first_ = nullptr;
  ngx_chain_t* last_ = nullptr;
  bool failed_ = false;
  bool bounded_ = false;
  ngx_chain_t only_{};
};

// Answers with 200 and a body that is ready, as Page does.
ngx_int_t send_page(ngx_http_request_t* r, std::string_view type, ngx_chain_t* body) noexcept;

// Answers with a problem, from a content handler; return what it returns.
ngx_int_t refuse_page(ngx_http_request_t* r, const http::Problem& problem) noexcept;

// NGX_DECLINED if the method is one of `allowed`, such as "GET, HEAD"; else what the handler is to
// return: 405, and which methods there are.
ngx_int_t check_method(ngx_http_request_t* r, ngx_uint_t methods,
                       std::string_view allowed) noexcept;

// Makes `handler` what answers in the location of the line being read. Refuses a location that has
// another one.
char* set_handler(ngx_conf_t* cf, ngx_http_handler_pt handler) noexcept;
// The same of a page, which its location's limits do not judge.
char* set_page(ngx_conf_t* cf, LocConf& loc, ngx_http_handler_pt handler) noexcept;

// For merge_loc_conf: `if` and `limit_except` blocks of a page's location answer as it does; what
// its own requests are judged by is parted from what it tells of. Refuses a location where another
// directive has taken the page's place.
char* merge_page(ngx_conf_t* cf, const LocConf& above, LocConf& loc) noexcept;

}  // namespace penstock
