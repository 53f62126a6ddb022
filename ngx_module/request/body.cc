#include "ngx_module/request/body.h"

#include <algorithm>

#include "ngx_module/conf/text.h"
#include "shared/http/form_fields.h"

namespace penstock {
namespace {

constexpr std::string_view kKnownNames[Body::kKnownFields] = {
    "model", "max_tokens", "max_completion_tokens", "n", "prompt", "messages", "input", "stream"};

constexpr Body kUnreadable{.readable = false, .fields = {}, .files = 0};

std::span<const std::string_view> names_of(const MainConf& main) noexcept {
  return {main.body_fields.begin(), main.body_fields.size()};
}

}  // namespace

// What has been seen of a body that comes in several pieces.
class BodyReader {
 public:
  BodyReader(std::span<const std::string_view> names, std::string_view type) noexcept
      : form_(http::FormFields::is_form(type)) {
    if (form_) {
      new (&of_form_) http::FormFields(names, type);
    } else {
      new (&of_json_) http::BodyFields(names);
    }
  }
  bool feed(std::string_view piece) noexcept {
    return form_ ? of_form_.feed(piece) : of_json_.feed(piece);
  }
  http::BodyField operator[](size_t i) const noexcept { return form_ ? of_form_[i] : of_json_[i]; }
  uint64_t files() const noexcept { return form_ ? of_form_.files() : 0; }
  std::string_view alike() const noexcept { return form_ ? std::string_view() : of_json_.alike(); }
  bool is_what_it_says() const noexcept { return !form_ || of_form_.is_form(); }

 private:
  bool form_;
  union {
    http::BodyFields of_json_;
    http::FormFields of_form_;
  };
};

namespace {

// What was found, in the request's pool; nullptr when memory ran out.
const Body* keep(ngx_http_request_t* r, const BodyReader& found) noexcept {
  const size_t count = main_conf(r)->body_fields.size();
  auto* memory =
      static_cast<std::byte*>(ngx_palloc(r->pool, sizeof(Body) + count * sizeof(http::BodyField)));
  if (memory == nullptr) {
    return nullptr;
  }
  auto* fields = reinterpret_cast<http::BodyField*>(memory + sizeof(Body));
  const auto* body = new (memory) Body{.fields = {fields, count},
                                       .files = found.files(),
                                       .alike = found.alike(),
                                       .is_form = found.is_what_it_says()};
  for (size_t i = 0; i < count; ++i) {
    new (&fields[i]) http::BodyField(found[i]);
    if (fields[i].text.empty()) {
      continue;
    }
    const ngx_str_t text = copy(r->pool, fields[i].text);
    if (text.data == nullptr) {
      return nullptr;
    }
    fields[i].text = view(text);
  }
  return body;
}

// Feeds what has come. True once no more can matter.
bool feed(BodyReader& reader, const ngx_chain_t* in) noexcept {
  for (; in != nullptr; in = in->next) {
    const ngx_buf_t& buf = *in->buf;
    if (reader.feed({reinterpret_cast<char*>(buf.pos), static_cast<size_t>(buf.last - buf.pos)}) ||
        buf.last_buf != 0) {
      return true;
    }
  }
  return false;
}

void finish(ngx_http_request_t* r, BodySearch& search, const BodyReader& reader) noexcept {
  const Body* body = keep(r, reader);
  search.found = body == nullptr ? &kUnreadable : body;
}

}  // namespace

void look_into(ngx_http_request_t* r, BodySearch& search, const ngx_chain_t* in) noexcept {
  const auto names = names_of(*main_conf(r));
  const ngx_table_elt_t* header = r->headers_in.content_type;
  const std::string_view type = header == nullptr ? std::string_view() : view(header->value);
  if (search.reader == nullptr) {
    BodyReader reader(names, type);
    if (feed(reader, in)) {
      return finish(r, search, reader);
    }
    void* memory = ngx_palloc(r->pool, sizeof(BodyReader));
    if (memory == nullptr) {
      search.found = &kUnreadable;
      return;
    }
    search.reader = new (memory) BodyReader(reader);
    return;
  }
  if (feed(*search.reader, in)) {
    finish(r, search, *search.reader);
    ngx_pfree(r->pool, search.reader);
    search.reader = nullptr;
  }
}

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

namespace {

constexpr size_t kStandInBytes = 17;

// What looks like one is told by one, too: nobody says another's.
bool is_stand_in(std::string_view text) noexcept {
  return text.size() == kStandInBytes && text.front() == '~' &&
         text.find_first_not_of("0123456789abcdef", 1) == text.npos;
}

}  // namespace

std::string_view line_of(ngx_pool_t* pool, const http::BodyField& field) noexcept {
  constexpr uint64_t kEmptyString = 2;  // its quotes
  constexpr size_t kBytes = kStandInBytes;
  if (!field.text.empty() && std::ranges::none_of(field.text, is_control) &&
      !is_stand_in(field.text)) {
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

const Body& body_of(ngx_http_request_t* r, BodySearch& search) noexcept {
  static constexpr Body kNothing;
  if (search.found == nullptr && search.reader != nullptr) {
    finish(r, search, *search.reader);
  }
  return search.found != nullptr ? *search.found : body_size(r) == 0 ? kNothing : kUnreadable;
}

size_t body_size(const ngx_http_request_t* r) noexcept {
  size_t size = 0;
  if (r->request_body != nullptr) {
    for (const ngx_chain_t* link = r->request_body->bufs; link != nullptr; link = link->next) {
      size += static_cast<size_t>(ngx_buf_size(link->buf));
    }
  }
  return size;
}

}  // namespace penstock
