#include "ngx_module/body.h"

#include <algorithm>

#include "ngx_module/request.h"
#include "ngx_module/text.h"

namespace penstock {
namespace {

constexpr std::string_view kKnownNames[Body::kKnownFields] = {
    "model", "max_tokens", "max_completion_tokens", "n", "prompt", "messages", "input"};

constexpr Body kUnreadable{.readable = false, .fields = {}};

std::span<const std::string_view> names_of(const MainConf& main) noexcept {
  return {main.body_fields.begin(), main.body_fields.size()};
}

// A piece of a file at a time. True once all was read that matters, false when reading failed.
bool scan_file(const ngx_buf_t& buf, http::BodyFields& fields) noexcept {
  static u_char piece[64 * 1024];  // of the process, which scans one body at a time
  for (off_t at = buf.file_pos; at < buf.file_last;) {
    const auto want = static_cast<size_t>(ngx_min(off_t{sizeof piece}, buf.file_last - at));
    const ssize_t got = ngx_read_file(buf.file, piece, want, at);
    if (got <= 0) {
      return false;
    }
    if (fields.feed({reinterpret_cast<char*>(piece), static_cast<size_t>(got)})) {
      return true;
    }
    at += got;
  }
  return true;
}

// False when reading failed.
bool scan(const ngx_chain_t* link, http::BodyFields& fields) noexcept {
  for (; link != nullptr; link = link->next) {
    const ngx_buf_t& buf = *link->buf;
    if (!ngx_buf_in_memory(&buf)) {
      if (!scan_file(buf, fields)) {
        return false;
      }
    } else if (fields.feed(
                   {reinterpret_cast<char*>(buf.pos), static_cast<size_t>(buf.last - buf.pos)})) {
      return true;
    }
  }
  return true;
}

// nullptr when reading failed, or memory ran out.
const Body* read(ngx_http_request_t* r) noexcept {
  const auto names = names_of(*main_conf(r));
  Body* body = make<Body>(r->pool);
  auto* fields =
      static_cast<http::BodyField*>(ngx_palloc(r->pool, names.size() * sizeof(http::BodyField)));
  http::BodyFields found(names);
  if (body == nullptr || fields == nullptr ||
      (r->request_body != nullptr && !scan(r->request_body->bufs, found))) {
    return nullptr;
  }
  body->fields = {fields, names.size()};
  for (size_t i = 0; i < names.size(); ++i) {
    new (&fields[i]) http::BodyField(found[i]);
    if (found[i].text.empty()) {
      continue;
    }
    const ngx_str_t text = copy(r->pool, found[i].text);
    if (text.data == nullptr) {
      return nullptr;
    }
    body->fields[i].text = view(text);
  }
  return body;
}

}  // namespace

bool want_body_field(ngx_conf_t* cf, std::string_view name) noexcept {
  MainConf& main = *main_conf(cf);
  if (main.body_fields.empty()) {
    for (const std::string_view known : kKnownNames) {
      if (main.body_fields.push(cf->pool, known) == nullptr) {
        return false;
      }
    }
  }
  return std::ranges::find(names_of(main), name) != names_of(main).end() ||
         main.body_fields.push(cf->pool, name) != nullptr;
}

ngx_int_t finish_body_fields(ngx_conf_t* cf) noexcept {
  if (!want_body_field(cf, kKnownNames[Body::kModel])) {
    return NGX_ERROR;
  }
  const auto& core = *static_cast<ngx_http_core_main_conf_t*>(
      ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module));
  const auto* variables = static_cast<const ngx_http_variable_t*>(core.variables.elts);
  for (size_t i = 0; i < core.variables.nelts; ++i) {
    const std::string_view name = view(variables[i].name);
    if (name.starts_with(kBodyVariable) &&
        !want_body_field(cf, name.substr(kBodyVariable.size()))) {
      return NGX_ERROR;
    }
  }
  const size_t count = main_conf(cf)->body_fields.size();
  if (count <= http::BodyFields::kMaxFields) {
    return NGX_OK;
  }
  refuse(cf,
         "%uz fields of the body are to be looked for, and at most %uz can be, %uz of them always: "
         "name fewer with $penstock_body_ variables and in penstock_cost",
         count, http::BodyFields::kMaxFields, size_t{Body::kKnownFields});
  return NGX_ERROR;
}

size_t place_of(const MainConf& main, std::string_view name) noexcept {
  const auto names = names_of(main);
  const auto at = std::ranges::find(names, name);
  return at == names.end() ? http::BodyFields::kMaxFields : static_cast<size_t>(at - names.begin());
}

std::string_view line_of(ngx_pool_t* pool, const http::BodyField& field) noexcept {
  constexpr uint64_t kEmptyString = 2;  // its quotes
  constexpr size_t kBytes = 17;
  if (!field.text.empty() && std::ranges::none_of(field.text, is_control)) {
    return field.text;
  }
  if (field.bytes == 0 || (field.text.empty() && field.bytes == kEmptyString &&
                           field.type == http::BodyField::Type::kString)) {
    return "";
  }
  auto* text = static_cast<u_char*>(ngx_pnalloc(pool, kBytes));
  if (text == nullptr) {
    return {};
  }
  ngx_snprintf(text, kBytes, "~%016xL", static_cast<int64_t>(field.digest));
  return {reinterpret_cast<char*>(text), kBytes};
}

const Body& body_of(ngx_http_request_t* r, RequestState& state) noexcept {
  if (state.body == nullptr) {
    const Body* body = read(r);
    state.body = body == nullptr ? &kUnreadable : body;
  }
  return *state.body;
}

}  // namespace penstock
