#include "worker/engines/llama/template/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "worker/engines/llama/unicode_class.h"

namespace penstock::llama::jinja {
namespace {

constexpr int kCompareDepth = 32;

bool equal_within(const Value& a, const Value& b, int depth);

bool equal_lists(const List& a, const List& b, int depth) {
  return a.shape == b.shape && a.items.size() == b.items.size() &&
         std::equal(a.items.begin(), a.items.end(), b.items.begin(),
                    [&](const Value& x, const Value& y) { return equal_within(x, y, depth); });
}

bool equal_dicts(const Dict& a, const Dict& b, int depth) {
  return a.entries.size() == b.entries.size() &&
         std::all_of(a.entries.begin(), a.entries.end(), [&](const auto& entry) {
           const Value* other = b.find(entry.first);
           return other != nullptr && equal_within(entry.second, *other, depth);
         });
}

bool equal_within(const Value& a, const Value& b, int depth) {
  double x = 0;
  double y = 0;
  if (is_number(a, x) && is_number(b, y)) {
    return x == y;
  }
  if (a.index() != b.index() || depth == 0) {
    return false;
  }
  if (const Text* text = as<Text>(a)) {
    return text->bytes() == text_of(b);
  }
  if (const List* list = as<List>(a)) {
    return equal_lists(*list, *as<List>(b), depth - 1);
  }
  if (const Dict* dict = as<Dict>(a)) {
    return equal_dicts(*dict, *as<Dict>(b), depth - 1);
  }
  if (const auto* space = std::get_if<Namespace*>(&a)) {
    return *space == std::get<Namespace*>(b);
  }
  if (const auto* loop = std::get_if<Loop*>(&a)) {
    return *loop == std::get<Loop*>(b);
  }
  const Callable* callable = as<Callable>(a);
  return callable == nullptr || callable == as<Callable>(b);
}

// Python's choice of quotes and its escapes; white space outside ASCII is spelled by its number.
void represent_text(const Text& text, Text& out) {
  const bool has_single = text.bytes().find('\'') != std::string_view::npos;
  const bool has_double = text.bytes().find('"') != std::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  out.append(std::string(1, quote), Hand::kTemplate);
  text.each_run([&](size_t from, size_t end, Hand hand) {
    std::string spelled;
    for (size_t bytes = 1; from < end; from += bytes) {
      constexpr char kHex[] = "0123456789abcdef";
      const char c = text.bytes()[from];
      const auto byte = static_cast<unsigned char>(c);
      const Char whole = char_at(text.bytes(), from);
      bytes = whole.bytes;
      if (whole.kind == CharClass::kSpace && whole.code >= 0x100) {
        spelled += {'\\',
                    'u',
                    kHex[whole.code >> 12 & 15],
                    kHex[whole.code >> 8 & 15],
                    kHex[whole.code >> 4 & 15],
                    kHex[whole.code & 15]};
      } else if (bytes > 1 && whole.code >= 0xA1) {
        spelled += text.bytes().substr(from, bytes);
      } else if (bytes > 1) {
        spelled += {'\\', 'x', kHex[whole.code >> 4 & 15], kHex[whole.code & 15]};
      } else if (c == quote || c == '\\') {
        spelled += {'\\', c};
      } else if (c == '\n' || c == '\r' || c == '\t') {
        spelled += {'\\', c == '\n' ? 'n' : (c == '\r' ? 'r' : 't')};
      } else if (byte < 0x20 || byte == 0x7F) {
        spelled += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
      } else {
        spelled += c;
      }
    }
    out.append(spelled, hand);
  });
  out.append(std::string(1, quote), Hand::kTemplate);
}

void add(Text& out, std::string_view bytes) { out.append(bytes, Hand::kTemplate); }

void represent_items(const List& list, Text& out, int depth) {
  const bool tuple = list.shape == List::Shape::kTuple;
  add(out, tuple ? "(" : "[");
  for (size_t i = 0; i < list.items.size(); ++i) {
    add(out, i == 0 ? "" : ", ");
    represent(list.items[i], out, depth);
  }
  add(out, tuple ? (list.items.size() == 1 ? ",)" : ")") : "]");
}

void represent_entries(const Dict& dict, Text& out, int depth) {
  add(out, "{");
  for (size_t i = 0; i < dict.entries.size(); ++i) {
    add(out, i == 0 ? "" : ", ");
    represent(dict.entries[i].first, out, depth);
    add(out, ": ");
    represent(dict.entries[i].second, out, depth);
  }
  add(out, "}");
}

}  // namespace

const Value* Dict::find(const Value& key) const {
  const auto found = std::find_if(entries.begin(), entries.end(),
                                  [&](const auto& entry) { return equal(entry.first, key); });
  return found == entries.end() ? nullptr : &found->second;
}

void Dict::set(const Value& key, const Value& value) {
  for (auto& entry : entries) {
    if (equal(entry.first, key)) {
      entry.second = value;
      return;
    }
  }
  entries.emplace_back(key, value);
}

const Value* Arguments::find(size_t place, std::string_view name) const {
  if (place < places.size()) {
    return &places[place];
  }
  const auto found = std::find_if(named.begin(), named.end(),
                                  [&](const auto& each) { return each.first == name; });
  return found == named.end() ? nullptr : &found->second;
}

std::string_view text_of(const Value& value) {
  const Text* text = as<Text>(value);
  return text == nullptr ? std::string_view() : text->bytes();
}

bool is_integer(const Value& value, int64_t& number) {
  if (const bool* flag = std::get_if<bool>(&value)) {
    number = *flag ? 1 : 0;
    return true;
  }
  const int64_t* integer = std::get_if<int64_t>(&value);
  number = integer == nullptr ? 0 : *integer;
  return integer != nullptr;
}

bool is_number(const Value& value, double& number) {
  int64_t integer = 0;
  if (is_integer(value, integer)) {
    number = static_cast<double>(integer);
    return true;
  }
  const double* real = std::get_if<double>(&value);
  number = real == nullptr ? 0 : *real;
  return real != nullptr;
}

bool truth(const Value& value) {
  double number = 0;
  if (is_number(value, number)) {
    return number != 0;
  }
  if (const Text* text = as<Text>(value)) {
    return !text->empty();
  }
  if (const List* list = as<List>(value)) {
    return list->shape == List::Shape::kGenerator || !list->items.empty();
  }
  if (const Dict* dict = as<Dict>(value)) {
    return !dict->entries.empty();
  }
  return !is_undefined(value) && !is_none(value);
}

bool equal(const Value& a, const Value& b) { return equal_within(a, b, kCompareDepth); }

bool order(const Value& a, const Value& b, int& result) {
  double x = 0;
  double y = 0;
  if (is_number(a, x) && is_number(b, y)) {
    result = x < y ? -1 : (x > y ? 1 : 0);
    return true;
  }
  if (as<Text>(a) == nullptr || as<Text>(b) == nullptr) {
    return false;
  }
  result = text_of(a).compare(text_of(b));
  return true;
}

const char* kind_of(const Value& value) {
  constexpr const char* kNames[] = {"undefined",   "none",     "a boolean", "an integer",
                                    "a float",     "a string", "a list",    "a mapping",
                                    "a namespace", "a loop",   "a callable"};
  static_assert(std::size(kNames) == std::variant_size_v<Value>);
  return kNames[value.index()];
}

// repr() of Python 3: the fewest digits that read back the same; an exponent from 1e16 on and
// below 1e-4.
std::string represent_float(double number) {
  if (!std::isfinite(number)) {
    return std::isnan(number) ? "nan" : (number < 0 ? "-inf" : "inf");
  }
  char buffer[64];
  const auto scientific =
      std::to_chars(buffer, buffer + sizeof buffer, number, std::chars_format::scientific);
  std::string spelled(buffer, scientific.ptr);
  const int exponent = std::atoi(spelled.c_str() + spelled.find('e') + 1);
  if (exponent < -4 || exponent >= 16) {
    return spelled;
  }
  const auto fixed =
      std::to_chars(buffer, buffer + sizeof buffer, number, std::chars_format::fixed);
  std::string text(buffer, fixed.ptr);
  return text.find('.') == text.npos ? text + ".0" : text;
}

void print(const Value& value, Text& out) {
  if (const Text* text = as<Text>(value)) {
    out.append(*text);
  } else {
    represent(value, out);
  }
}

void represent(const Value& value, Text& out, int depth) {
  int64_t integer = 0;
  if (is_undefined(value)) {
    return;
  }
  if (depth == 0) {
    add(out, "...");
  } else if (is_none(value)) {
    add(out, "None");
  } else if (const bool* flag = std::get_if<bool>(&value)) {
    add(out, *flag ? "True" : "False");
  } else if (is_integer(value, integer)) {
    add(out, std::to_string(integer));
  } else if (const double* number = std::get_if<double>(&value)) {
    add(out, represent_float(*number));
  } else if (const Text* text = as<Text>(value)) {
    represent_text(*text, out);
  } else if (const List* list = as<List>(value)) {
    represent_items(*list, out, depth - 1);
  } else if (const Dict* dict = as<Dict>(value)) {
    represent_entries(*dict, out, depth - 1);
  } else {
    add(out, std::string("<") + kind_of(value) + ">");
  }
}

}  // namespace penstock::llama::jinja
