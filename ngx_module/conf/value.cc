#include "ngx_module/conf/value.h"

namespace penstock {

namespace {

bool is_one_variable(const ngx_str_t& text) noexcept {
  if (text.len < 2 || text.data[0] != '$') {
    return false;
  }
  for (size_t i = 1; i < text.len; ++i) {
    const u_char c = text.data[i];
    const bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    const bool digit = c >= '0' && c <= '9';
    if (!word && !(digit && i > 1)) {  // $1 is a capture, not a variable with an index
      return false;
    }
  }
  return true;
}

constexpr std::string_view kHeaderVariable = "http_";

// Notes which header a variable $http_NAME is. False when memory ran out.
bool note_header(ngx_conf_t* cf, std::string_view variable, Value& value) noexcept {
  if (!variable.starts_with(kHeaderVariable)) {
    return true;
  }
  value.header = copy(cf->pool, variable.substr(kHeaderVariable.size()));
  if (value.header.data == nullptr) {
    return false;
  }
  for (size_t i = 0; i < value.header.len; ++i) {
    u_char& c = value.header.data[i];
    c = c == '_' ? static_cast<u_char>('-') : static_cast<u_char>(ngx_tolower(c));
  }
  value.header_hash = ngx_hash_key(value.header.data, value.header.len);
  return true;
}

// Whether the variable is what Nginx makes of all $http_ that nobody has defined.
bool is_nginxs_own(ngx_http_request_t* r, ngx_int_t index) noexcept {
  const auto& core = *static_cast<ngx_http_core_main_conf_t*>(
      ngx_http_get_module_main_conf(r, ngx_http_core_module));
  const auto* prefixes = static_cast<const ngx_http_variable_t*>(core.prefix_variables.elts);
  const ngx_http_variable_t& variable =
      static_cast<const ngx_http_variable_t*>(core.variables.elts)[index];
  for (size_t i = 0; i < core.prefix_variables.nelts; ++i) {
    if (view(prefixes[i].name) == kHeaderVariable) {
      return variable.get_handler == prefixes[i].get_handler;
    }
  }
  return false;
}

// A header by the hash that Nginx has made of each name, where the variable would compare them
// letter by letter. nullptr: there is none, or several, or one may be written with underscores; the
// variable knows.
const ngx_table_elt_t* find_only(ngx_http_request_t* r, const Value& value) noexcept {
  const auto& core = *static_cast<ngx_http_core_srv_conf_t*>(
      ngx_http_get_module_srv_conf(r, ngx_http_core_module));
  if (core.underscores_in_headers != 0 || core.ignore_invalid_headers == 0) {
    return nullptr;
  }
  const ngx_table_elt_t* found = nullptr;
  const bool one =
      each_of<ngx_table_elt_t>(r->headers_in.headers, [&](const ngx_table_elt_t& header) noexcept {
        if (header.hash != value.header_hash || lower_name(header) != view(value.header)) {
          return true;
        }
        const bool first = found == nullptr;
        found = &header;
        return first;
      });
  return one ? found : nullptr;
}

}  // namespace

char* compile_value(ngx_conf_t* cf, ngx_str_t text, Value& value) noexcept {
  if (is_one_variable(text)) {
    ngx_str_t name{text.len - 1, text.data + 1};
    if (!note_header(cf, view(name), value)) {
      return static_cast<char*>(NGX_CONF_ERROR);
    }
    value.index = ngx_http_get_variable_index(cf, &name);
    value.kind = Value::Kind::kVariable;
    return value.index == NGX_ERROR ? static_cast<char*>(NGX_CONF_ERROR) : NGX_CONF_OK;
  }
  ngx_http_compile_complex_value_t compile;
  ngx_memzero(&compile, sizeof compile);
  compile.cf = cf;
  compile.value = &text;
  compile.complex_value = &value.complex;
  if (ngx_http_compile_complex_value(&compile) != NGX_OK) {
    return static_cast<char*>(NGX_CONF_ERROR);
  }
  value.kind = value.complex.lengths == nullptr ? Value::Kind::kConstant : Value::Kind::kComplex;
  value.constant = value.complex.value;
  return NGX_CONF_OK;
}

bool Value::get(ngx_http_request_t* r, std::string_view& out) const noexcept {
  out = {};
  switch (kind) {
    case Kind::kNone:
      return true;
    case Kind::kConstant:
      out = view(constant);
      return true;
    case Kind::kVariable: {
      if (header.len != 0 && own == Own::kUnknown) {
        own = is_nginxs_own(r, index) ? Own::kYes : Own::kNo;
      }
      const ngx_http_variable_value_t& known = r->variables[index];  // by `set`, for instance
      if (own == Own::kYes && known.valid == 0 && known.not_found == 0) {
        if (const ngx_table_elt_t* only = find_only(r, *this); only != nullptr) {
          out = view(only->value);
          return true;
        }
      }
      const ngx_http_variable_value_t* v =
          ngx_http_get_flushed_variable(r, static_cast<ngx_uint_t>(index));
      if (v != nullptr && v->not_found == 0) {
        out = {reinterpret_cast<const char*>(v->data), v->len};
      }
      return true;
    }
    case Kind::kComplex: {
      ngx_str_t result;
      if (ngx_http_complex_value(r, const_cast<ngx_http_complex_value_t*>(&complex), &result) !=
          NGX_OK) {
        return false;
      }
      out = view(result);
      return true;
    }
  }
  return true;
}

}  // namespace penstock
