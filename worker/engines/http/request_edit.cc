#include "worker/engines/http/request_edit.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "shared/http/form_fields.h"
#include "shared/http/header_lines.h"
#include "shared/http/json_chars.h"
#include "shared/http/passed_headers.h"
#include "shared/http/trace_context.h"
#include "worker/engines/http/top_fields.h"

namespace penstock::http_engine {
namespace {

using Fields = std::vector<std::pair<std::string, std::string>>;

// What of a body is text to the model.
constexpr std::string_view kPrompts[] = {"messages", "prompt", "input",      "inputs",   "system",
                                         "tools",    "query",  "text_input", "documents"};
constexpr std::string_view kBounds[] = {"max_tokens", "max_completion_tokens"};

// False: it is no whole object, or more follows.
bool read_object(std::string_view json, TopFields& fields) {
  fields.feed(json);
  return fields.closed_at() > 0 && std::all_of(json.begin() + fields.closed_at() + 1, json.end(),
                                               [](char c) { return http::is_space(c); });
}

std::string_view value_of(std::string_view json, const TopField& field) {
  return json.substr(field.value, field.end - field.value);
}

std::optional<uint64_t> number_in(const TopFields& fields, std::string_view name) {
  const TopField* const field = fields.find(name);
  uint64_t number = 0;
  if (field == nullptr) {
    return std::nullopt;
  }
  const std::string& text = field->text;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size() ? std::optional(number)
                                                                  : std::nullopt;
}

bool is_true(const TopFields& fields, std::string_view name) {
  const TopField* const field = fields.find(name);
  return field != nullptr && field->text == "true";
}

// As JSON. A model's name is printable; what could end the string is escaped all the same.
std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
    }
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out + '"';
}

Failure refused(std::string message) {
  return {.status = 400, .code = "invalid_request", .message = std::move(message)};
}

// Its fields take the place of the body's, but a bound on tokens only ever lowers, by whichever
// name the body has it.
bool add_override(std::string_view override, const TopFields& body, Fields& changes) {
  TopFields fields;
  if (!read_object(override, fields)) {
    return false;
  }
  std::optional<uint64_t> bound;
  for (const TopField& field : fields.fields()) {
    const bool bounds =
        std::find(std::begin(kBounds), std::end(kBounds), field.name) != std::end(kBounds);
    if (!bounds) {
      changes.emplace_back(field.name, value_of(override, field));
    } else if (const auto number = number_in(fields, field.name)) {
      bound = std::min(bound.value_or(*number), *number);
    } else {
      return false;
    }
  }
  if (!bound) {
    return true;
  }
  bool any = false;
  for (const std::string_view name : kBounds) {
    const TopField* const field = body.find(name);
    if (field != nullptr && field->text != "null") {
      changes.emplace_back(
          name, std::to_string(std::min(number_in(body, name).value_or(UINT64_MAX), *bound)));
      any = true;
    }
  }
  if (!any) {
    changes.emplace_back(kBounds[0], std::to_string(*bound));
  }
  return true;
}

// Asks for the usage of a stream; true: the caller did not.
bool ask_for_usage(std::string_view body, const TopFields& fields, Fields& changes) {
  const TopField* const options = fields.find("stream_options");
  TopFields inner;
  if (options == nullptr || !read_object(value_of(body, *options), inner)) {
    changes.emplace_back("stream_options", "{\"include_usage\":true}");
    return true;
  }
  if (is_true(inner, "include_usage")) {
    return false;
  }
  changes.emplace_back("stream_options",
                       with_fields(value_of(body, *options), {{"include_usage", "true"}}));
  return true;
}

bool is_json_type(std::string_view type) {
  const std::string_view essence = type.substr(0, type.find(';'));
  return essence.empty() || http::same_name(essence, "application/json") ||
         essence.ends_with("+json");
}

// What the path says of the call.
void read_path(std::string_view path, Protocol protocol, Call& call) {
  const auto ends = [&](std::string_view end) { return path.ends_with(end); };
  const bool media = path.find("/audio/") != path.npos || path.find("/images/") != path.npos;
  const bool infers = ends("/infer");
  call.anthropic = ends("/messages");
  call.makes_text = ends("/completions") || ends("/messages") || ends("/responses") ||
                    ends("/embeddings") || ends("/generate") || ends("/generate_stream");
  call.reads_json = protocol != Protocol::kPlain && !media && !infers;
  call.may_resend = protocol != Protocol::kPlain && !ends("/responses");
}

constexpr std::string_view kParent = "traceparent";
constexpr std::string_view kState = "tracestate";

// A traceparent that breaks a rule does not go on, and no tracestate without one.
void take_trace(const Request& request, const Options& options, Call& call) {
  const auto came = http::trace_headers_of(request.headers);
  const auto ours = http::parse_traceparent(request.trace);
  if ((!came && !ours) || options.has_header(kParent)) {
    return;
  }
  call.headers.push_back("traceparent: " + http::render_traceparent(ours ? *ours : came->context));
  if (came && !came->state.empty() && !options.has_header(kState)) {
    call.headers.push_back("tracestate: " + came->state);
  }
}

// The caller's, but for those that the operator has set. Not taken on trust: what goes to somebody
// else's server is looked at here, too.
void take_headers(const Request& request, const Options& options, Call& call) {
  http::HeaderLine line;
  take_trace(request, options, call);
  for (std::string_view lines = request.headers;
       !lines.empty() && http::next_header_line(lines, line) == nullptr;) {
    if (http::is_passed_on(line.name) && !http::same_name(line.name, kParent) &&
        !http::same_name(line.name, kState) && !line.value.empty() &&
        !options.has_header(line.name)) {
      call.headers.push_back(std::string(line.name).append(": ").append(line.value));
    }
  }
  constexpr std::string_view kVersion = "anthropic-version";
  const bool told = options.has_header(kVersion) ||
                    std::any_of(call.headers.begin(), call.headers.end(), [&](const auto& each) {
                      return http::same_name(each.substr(0, kVersion.size()), kVersion);
                    });
  if (call.anthropic && !told) {
    call.headers.emplace_back("anthropic-version: 2023-06-01");
  }
}

// What the server calls the model that the job was routed by.
std::string_view model_for(const Request& request, const Options& options) {
  return options.upstream_model.empty() ? request.model : options.upstream_model;
}

// /v2/models/NAME/infer: the name that the server knows.
std::string path_for(const Request& request, const Options& options) {
  constexpr std::string_view kModels = "/v2/models/";
  std::string path(request.path);
  const size_t at = path.find(kModels);
  if (options.protocol == Protocol::kKserve && !options.upstream_model.empty() && at != path.npos) {
    const size_t name = at + kModels.size();
    path.replace(name, std::min(path.find('/', name), path.size()) - name, options.upstream_model);
  }
  return path;
}

// A text in the place of [begin, end).
struct Edit {
  size_t begin;
  size_t end;
  std::string text;
};
using Edits = std::vector<Edit>;  // in their order

// The field `model` of a multipart form; a form that has none begins with one.
Edits edit_form(const Request& request, const Options& options) {
  constexpr std::string_view kModel = "model";
  const std::string model(model_for(request, options));
  http::FormFields fields(std::span(&kModel, 1), request.content_type);
  fields.feed(request.body);
  if (model.empty() || fields.delimiter().empty()) {
    return {};
  }
  if (fields[0].type != http::BodyField::Type::kMissing) {
    const uint64_t begin = fields.begin(0);
    return {{begin, begin + fields[0].bytes, model}};
  }
  if (options.upstream_model.empty()) {
    return {};
  }
  std::string part(fields.delimiter());
  part.append("\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n").append(model);
  return {{0, 0, part.append("\r\n")}};
}

// What these fields change in an object, which has `fields`.
Edits edits_of(const TopFields& fields, const Fields& changes) {
  Edits edits;
  for (const TopField& field : fields.fields()) {
    const auto change = std::find_if(changes.rbegin(), changes.rend(),
                                     [&](const auto& each) { return each.first == field.name; });
    if (change != changes.rend()) {  // each time that it comes
      edits.push_back({field.value, field.end, change->second});
    }
  }
  std::string more;
  bool first = fields.fields().empty();
  for (auto each = changes.begin(); each != changes.end(); ++each) {
    const bool later = std::any_of(each + 1, changes.end(),
                                   [&](const auto& other) { return other.first == each->first; });
    if (fields.find(each->first) == nullptr && !later) {
      more.append(std::exchange(first, false) ? "\"" : ",\"").append(each->first);
      more.append("\":").append(each->second);
    }
  }
  if (!more.empty()) {
    edits.push_back({fields.closed_at(), fields.closed_at(), std::move(more)});
  }
  return edits;
}

std::string with_edits(std::string_view text, const Edits& edits) {
  std::string out;
  out.reserve(text.size() + 256);
  size_t from = 0;
  for (const Edit& each : edits) {
    out.append(text.substr(from, each.begin - from)).append(each.text);
    from = each.end;
  }
  return out.append(text.substr(from));
}

// A large body is not copied.
void set_body(const Request& request, const Edits& edits, Call& call) {
  if (request.storage == nullptr) {
    call.text = with_edits(request.body, edits);
    call.body = {call.text};
    return;
  }
  call.storage = request.storage;
  for (const Edit& each : edits) {
    call.text += each.text;
  }
  std::string_view texts = call.text;
  size_t from = 0;
  for (const Edit& each : edits) {
    call.body.push_back(request.body.substr(from, each.begin - from));
    call.body.push_back(texts.substr(0, each.text.size()));
    texts.remove_prefix(each.text.size());
    from = each.end;
  }
  call.body.push_back(request.body.substr(from));
}

// Whether an escape stands for a letter or another printable character of ASCII, or for what some
// parsers take for a letter (U+017F, U+212A): what is edited is found by names as they are written.
bool hides_letters(std::string_view name) {
  for (size_t i = name.find('\\'); i < name.size(); i = name.find('\\', i)) {
    unsigned code = 0;
    const std::string_view digits = name.substr(std::min(i + 2, name.size()), 4);
    if (name.substr(i, 2) == "\\u" &&
        std::from_chars(digits.data(), digits.data() + digits.size(), code, 16).ec == std::errc{} &&
        ((code > 0x20 && code < 0x7F) || code == 0x17F || code == 0x212A)) {
      return true;
    }
    i = std::min(i + 2, name.size());
  }
  return false;
}

// Changes the body, and reads what of it counts.
std::optional<Failure> edit_body(const Request& request, const Options& options, Call& call) {
  TopFields fields;
  if (!read_object(request.body, fields)) {
    return refused("The body is not a whole JSON object of at most 256 fields.");
  }
  for (const TopField& field : fields.fields()) {
    if (hides_letters(field.name)) {
      return refused("A field's name has an escape in the place of a letter: write it plainly.");
    }
  }
  Fields changes;
  if (!request.override.empty() && !add_override(request.override, fields, changes)) {
    return refused("The operator's override is not a JSON object with whole numbers as bounds.");
  }
  const std::string model = quoted(model_for(request, options));
  const TopField* const named = fields.find("model");
  if (model.size() > 2 &&
      (named == nullptr ? !options.upstream_model.empty() : named->text != model)) {
    changes.emplace_back("model", model);
  }
  if (request.path.ends_with("/completions") && is_true(fields, "stream")) {
    call.hides_usage = ask_for_usage(request.body, fields, changes);
  }
  call.choices = std::clamp<uint64_t>(number_in(fields, "n").value_or(1), 1, 1024);
  const TopField* const stored = fields.find("store");
  call.may_resend = call.may_resend || (request.path.ends_with("/responses") && stored != nullptr &&
                                        stored->text == "false");
  for (const TopField& field : fields.fields()) {
    if (std::find(std::begin(kPrompts), std::end(kPrompts), field.name) != std::end(kPrompts)) {
      call.prompt_bytes += field.end - field.value;
    }
  }
  set_body(request, edits_of(fields, changes), call);
  return std::nullopt;
}

}  // namespace

std::string with_fields(std::string_view json, const Fields& changes) {
  TopFields fields;
  return read_object(json, fields) ? with_edits(json, edits_of(fields, changes)) : std::string();
}

std::variant<std::unique_ptr<Call>, Failure> edit_request(const Request& request,
                                                          const Options& options) {
  if (request.body.size() > options.max_body_bytes) {
    return Failure{.status = 413, .code = "too_large", .message = "The body is too large."};
  }
  auto call = std::make_unique<Call>();
  call->method = request.method;
  call->content_type = request.content_type;
  const std::string path = path_for(request, options);
  call->url = options.url.of(path, request.query);
  call->shown = options.url.shown(path);
  read_path(request.path, options.protocol, *call);
  take_headers(request, options, *call);
  const bool edits = options.protocol == Protocol::kOpenai && is_json_type(request.content_type) &&
                     request.method == "POST";
  if (!edits) {
    const bool form =
        options.protocol == Protocol::kOpenai && http::FormFields::is_form(request.content_type);
    set_body(request, form ? edit_form(request, options) : Edits(), *call);
    call->prompt_bytes = request.body.size();
  } else if (auto failure = edit_body(request, options, *call)) {
    return std::move(*failure);
  }
  return call;
}

}  // namespace penstock::http_engine
