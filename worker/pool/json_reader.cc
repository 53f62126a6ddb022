#include "worker/pool/json_reader.h"

#include <algorithm>
#include <charconv>

#include "shared/base/utf8.h"
#include "worker/pool/openai.h"

namespace penstock::openai {
namespace {

using simdjson::error_code;

const char* words_of(error_code error) {
  switch (error) {
    case simdjson::EMPTY:
      return "it is empty";
    case simdjson::UTF8_ERROR:
      return "bytes that are not UTF-8";
    case simdjson::UNCLOSED_STRING:
      return "a string without its closing quote";
    case simdjson::UNESCAPED_CHARS:
      return "a control character inside a string, or a character outside of one";
    case simdjson::STRING_ERROR:
      return "a string with a bad escape";
    case simdjson::NUMBER_ERROR:
      return "a malformed number";
    case simdjson::T_ATOM_ERROR:
    case simdjson::F_ATOM_ERROR:
    case simdjson::N_ATOM_ERROR:
      return "a word that is not true, false or null";
    case simdjson::INCOMPLETE_ARRAY_OR_OBJECT:
      return "no closing bracket of the object";
    case simdjson::TRAILING_CONTENT:
      return "something after the end of the object";
    case simdjson::DEPTH_ERROR:
      return "values nested too deeply";
    default:
      return "a value, comma, colon or bracket that is missing or out of place";
  }
}

// Where stage 1, which judges the body as a whole, stumbled over its strings.
size_t string_trouble(std::string_view body) {
  size_t opened = body.size();  // offset of the quote of the string we are in
  for (size_t i = 0; i < body.size(); ++i) {
    const bool inside = opened != body.size();
    if (inside && body[i] == '\\') {
      ++i;
    } else if (body[i] == '"') {
      opened = inside ? body.size() : i;
    } else if (inside && static_cast<unsigned char>(body[i]) < 0x20) {
      return i;
    }
  }
  return opened;
}

// RFC 8259, section 6.
bool is_json_number(std::string_view text) {
  size_t i = 0;
  const auto digits = [&] {
    const size_t from = i;
    while (i < text.size() && text[i] >= '0' && text[i] <= '9') {
      ++i;
    }
    return i - from;
  };
  const auto take = [&](char a, char b) {
    const bool there = i < text.size() && (text[i] == a || text[i] == b);
    i += there ? 1 : 0;
    return there;
  };
  take('-', '-');
  const bool zero_first = i < text.size() && text[i] == '0';
  const size_t whole = digits();
  if (whole == 0 || (zero_first && whole > 1) || (take('.', '.') && digits() == 0)) {
    return false;
  }
  if (take('e', 'E')) {
    take('+', '-');
    if (digits() == 0) {
      return false;
    }
  }
  return i == text.size();
}

// As much of a number as a message should hold.
std::string shown(std::string_view token) {
  constexpr size_t kMost = 32;
  return std::string(token.substr(0, kMost)) + (token.size() > kMost ? "..." : "");
}

std::string plain(double number) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, number).ptr};
}

}  // namespace

JsonReader::JsonReader(simdjson::ondemand::parser& parser, const char* padded, size_t size,
                       Source source)
    : bytes_(padded), size_(size), source_(source) {
  // Windows puts a byte order mark before UTF-8: RFC 8259, section 8.1, lets us pass over it.
  constexpr std::string_view kMark = "\xEF\xBB\xBF";
  const size_t from = std::string_view(padded, size).starts_with(kMark) ? kMark.size() : 0;
  const error_code error =
      parser.iterate(padded + from, size - from, size - from + simdjson::SIMDJSON_PADDING)
          .get(document_);
  if (error != simdjson::SUCCESS) {
    const std::string_view body(bytes_, size_);
    at_ = error == simdjson::UTF8_ERROR ? utf8_first_invalid(body) : string_trouble(body);
    malformed(error);
  }
}

bool JsonReader::refuse(std::string_view param, const std::string& message) {
  return fail(param, source_.preface + message);
}

bool JsonReader::fail(std::string_view param, std::string message) {
  if (ok()) {
    failure_ = Failure{400, "invalid_request", std::move(message), std::string(param), false};
  }
  return false;
}

size_t JsonReader::offset_of(error_code error) {
  if (at_.has_value()) {
    return std::min(*at_, size_);
  }
  const char* here = nullptr;
  const bool at_end = error == simdjson::INCOMPLETE_ARRAY_OR_OBJECT ||
                      document_.current_location().get(here) != simdjson::SUCCESS;
  return at_end || here < bytes_ || here > bytes_ + size_ ? size_
                                                          : static_cast<size_t>(here - bytes_);
}

bool JsonReader::malformed(error_code error) {
  malformed_ = true;
  if (error == simdjson::EMPTY) {
    return fail("", std::string(source_.subject) + " is empty. Send a JSON object.");
  }
  return fail("", std::string(source_.subject) + " is not valid JSON: " + words_of(error) +
                      " at byte " + std::to_string(offset_of(error)) + ".");
}

bool JsonReader::Refused::forget(std::string_view name) {
  return std::erase_if(fields_, [&](const auto& each) { return each.first == name; }) > 0;
}

void JsonReader::Refused::add(std::string_view name, Failure failure) {
  fields_.emplace_back(name, std::move(failure));
  ++added_;
}

bool JsonReader::top_level(simdjson::ondemand::object& object) {
  if (!ok()) {
    return false;
  }
  document_.rewind();
  const error_code error = document_.get_object().get(object);
  if (error == simdjson::INCORRECT_TYPE) {
    return fail("", std::string(source_.subject) + " must be a JSON object.");
  }
  return error == simdjson::SUCCESS || malformed(error);
}

// Looks at every value once more, and at no field's meaning.
bool JsonReader::check_whole() {
  simdjson::ondemand::object object;
  const auto on_field = [this](std::string_view, Value value) { return skip(value, 2); };
  return top_level(object) && walk_fields(object, on_field) && at_end();
}

bool JsonReader::at_end() {
  at_.reset();
  const char* here = nullptr;
  return document_.current_location().get(here) == simdjson::OUT_OF_BOUNDS ||
         malformed(simdjson::TRAILING_CONTENT);
}

bool JsonReader::type_of(Value& value, JsonType& type) {
  const char* here = nullptr;
  at_.reset();
  if (value.current_location().get(here) == simdjson::SUCCESS) {
    at_ = static_cast<size_t>(here - bytes_);
  }
  const error_code error = value.type().get(type);
  const bool fine = error == simdjson::SUCCESS || malformed(error);
  if (fine && (type == JsonType::array || type == JsonType::object)) {
    at_.reset();  // trouble will be inside
  }
  return fine;
}

bool JsonReader::is_null(Value& value, bool& null) {
  JsonType type;
  if (!type_of(value, type)) {
    return false;
  }
  null = type == JsonType::null;
  if (null) {
    if (value.is_null().get(null) != simdjson::SUCCESS) {
      return malformed(simdjson::N_ATOM_ERROR);
    }
    at_.reset();
  }
  return true;
}

const char* JsonReader::name_of(JsonType type) {
  switch (type) {
    case JsonType::array:
      return "an array";
    case JsonType::object:
      return "an object";
    case JsonType::number:
      return "a number";
    case JsonType::string:
      return "a string";
    case JsonType::boolean:
      return "a boolean";
    default:
      return "null";
  }
}

bool JsonReader::expect(Value& value, std::string_view param, JsonType type, const char* wanted) {
  JsonType found;
  if (!type_of(value, found)) {
    return false;
  }
  return found == type ||
         refuse(param, std::string(param) + " must be " + wanted + ", not " + name_of(found) + ".");
}

bool JsonReader::string(Value& value, std::string_view param, std::string& out) {
  if (!expect(value, param, JsonType::string, "a string")) {
    return false;
  }
  std::string_view text;
  if (const error_code error = value.get_string().get(text); error) {
    return malformed(error);
  }
  at_.reset();
  out.assign(text);
  return true;
}

bool JsonReader::boolean(Value& value, std::string_view param, bool& out) {
  if (!expect(value, param, JsonType::boolean, "true or false")) {
    return false;
  }
  if (value.get_bool().get(out) != simdjson::SUCCESS) {
    return malformed(simdjson::T_ATOM_ERROR);
  }
  at_.reset();
  return true;
}

bool JsonReader::number_token(Value& value, std::string_view param, std::string_view& token) {
  if (!expect(value, param, JsonType::number, "a number")) {
    return false;
  }
  token = value.raw_json_token();
  token = token.substr(0, token.find_last_not_of(" \t\r\n") + 1);
  if (!is_json_number(token)) {
    return malformed(simdjson::NUMBER_ERROR);
  }
  at_.reset();
  return true;
}

bool JsonReader::integer(Value& value, std::string_view param, uint64_t& bits, bool& negative) {
  std::string_view token;
  if (!number_token(value, param, token)) {
    return false;
  }
  negative = token.front() == '-';
  int64_t below_zero = 0;
  const char* const end = token.data() + token.size();
  const auto [stop, error] = negative ? std::from_chars(token.data(), end, below_zero)
                                      : std::from_chars(token.data(), end, bits);
  if (error != std::errc{} || stop != end) {
    return refuse(param, std::string(param) + " must be an integer of at most 64 bits, not " +
                             shown(token) + ".");
  }
  bits = negative ? static_cast<uint64_t>(below_zero) : bits;
  return true;
}

bool JsonReader::number(Value& value, std::string_view param, double least, double most,
                        double& out) {
  std::string_view token;
  if (!number_token(value, param, token)) {
    return false;
  }
  const auto error = std::from_chars(token.data(), token.data() + token.size(), out).ec;
  if (error != std::errc{} || out < least || out > most) {
    return refuse(param, std::string(param) + " must be between " + plain(least) + " and " +
                             plain(most) + ", not " + shown(token) + ".");
  }
  return true;
}

bool JsonReader::whole(Value& value, std::string_view param, int64_t least, int64_t most,
                       int64_t& out) {
  std::string_view token;
  if (!number_token(value, param, token)) {
    return false;
  }
  const char* const end = token.data() + token.size();
  const auto [stop, error] = std::from_chars(token.data(), end, out);
  if (error != std::errc{} || stop != end || out < least || out > most) {
    return refuse(param, std::string(param) + " must be an integer between " +
                             std::to_string(least) + " and " + std::to_string(most) + ", not " +
                             shown(token) + ".");
  }
  return true;
}

bool JsonReader::skip(Value& value, int depth, bool* is_empty) {
  JsonType type;
  if (!type_of(value, type)) {
    return false;
  }
  if (depth > kMaxDepth) {
    return malformed(simdjson::DEPTH_ERROR);
  }
  bool empty = true;
  bool fine = true;
  if (type == JsonType::object) {
    fine = each_field(value, [&](std::string_view, Value field) {
      empty = false;
      return skip(field, depth + 1);
    });
  } else if (type == JsonType::array) {
    fine = each_element(value, [&](size_t, Value element) {
      empty = false;
      return skip(element, depth + 1);
    });
  } else {
    fine = skip_scalar(value, type, empty);
  }
  if (is_empty != nullptr) {
    *is_empty = empty;
  }
  return fine;
}

bool JsonReader::skip_scalar(Value& value, JsonType type, bool& empty) {
  if (type == JsonType::null) {
    return is_null(value, empty);
  }
  if (type == JsonType::boolean) {
    bool truth = false;
    const bool fine = boolean(value, "", truth);
    empty = !truth;
    return fine;
  }
  if (type == JsonType::number) {
    std::string_view token;
    const bool fine = number_token(value, "", token);
    empty = token.substr(0, token.find_first_of("eE")).find_first_of("123456789") == token.npos;
    return fine;
  }
  std::string_view text;
  const error_code error = value.get_string().get(text);
  empty = text.empty();
  return error == simdjson::SUCCESS || malformed(error);
}

}  // namespace penstock::openai
