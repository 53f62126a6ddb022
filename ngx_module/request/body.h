// The fields of the body that the configuration has a use for: those that costs are reckoned from,
// and every $penstock_body_NAME that it names.
//
// They are known once the configuration was read, and found as the body comes, by a filter that
// sees each piece before it is kept or spooled: whatever asks for them later reads nothing again. A
// body is JSON, or a form where its type says so.
#pragma once

#include <span>

#include "ngx_module/conf/conf.h"
#include "shared/http/body_fields.h"

namespace penstock {

constexpr std::string_view kBodyVariable = "penstock_body_";  // then the field's name

// While the configuration is read: `name` is to be found in bodies. False when memory ran out.
// REQUIRES: name lives as long as the configuration.
bool want_body_field(ngx_conf_t* cf, std::string_view name) noexcept;

// At its end: adds the fields of all variables in use. More than can be looked for are refused.
ngx_int_t finish_body_fields(ngx_conf_t* cf) noexcept;

// What was found. Text lives as long as the request.
struct Body {
  // Those that are always looked for: the first of MainConf::body_fields.
  enum KnownField : size_t {
    kModel,
    kMaxTokens,
    kMaxCompletionTokens,
    kAnswers,
    kPrompt,
    kMessages,
    kInput,
    kStream,
    kKnownFields
  };

  bool readable = true;               // false: memory ran out
  std::span<http::BodyField> fields;  // in the order of the names, as many as there are
  uint64_t files = 0;                 // that came with a form
  std::string_view alike = {};        // BodyFields::alike()
  bool is_form = true;                // false: its type says so, and it is none

  // What is looked for by no name is never there.
  http::BodyField operator[](size_t i) const noexcept {
    return i < fields.size() ? fields[i] : http::BodyField{};
  }
};

// The place of a name in Body::fields, or a place where nothing is.
size_t place_of(const MainConf& main, std::string_view name) noexcept;

// The field in one line: its text, or, where there is none (a long string, an array ...) or it has
// control characters, which could forge a line of a log or a header, a stand-in of fixed length.
// Empty for a field that is not there or an empty string; data() is nullptr when memory ran out.
std::string_view line_of(ngx_pool_t* pool, const http::BodyField& field) noexcept;

class BodyReader;

// What is known of a request's body so far.
struct BodySearch {
  BodyReader* reader = nullptr;  // while it comes in pieces
  const Body* found = nullptr;   // once all that matters has come
};
// Some of the body has come. Most come whole, and need no memory but for what was found.
// REQUIRES: nothing was found yet.
void look_into(ngx_http_request_t* r, BodySearch& search, const ngx_chain_t* in) noexcept;

// What was found in it. REQUIRES: all of it has come.
const Body& body_of(ngx_http_request_t* r, BodySearch& search) noexcept;

// The longest body that goes to penstockd: a frame's length has 32 bits, and it holds more than the
// body.
constexpr off_t kMaxBodyBytes = 0xFFFFFFFF - (1 << 20);

// The size of what is in r->request_body, in bytes.
size_t body_size(const ngx_http_request_t* r) noexcept;

}  // namespace penstock
