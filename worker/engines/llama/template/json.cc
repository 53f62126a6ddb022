// to_json() of value.h.
#include <algorithm>
#include <cmath>

#include "worker/engines/llama/template/value.h"

namespace penstock::llama::jinja {
namespace {

constexpr int kMaxDepth = 32;

void add(Text& out, std::string_view bytes) { out.append(bytes, Hand::kTemplate); }

void add_line(Text& out, int indent, int depth) {
  if (indent >= 0) {
    add(out, "\n" + std::string(static_cast<size_t>(indent) * depth, ' '));
  }
}

void quote_text(const Text& text, Text& out) {
  add(out, "\"");
  text.each_run([&](size_t from, size_t end, Hand hand) {
    std::string spelled;
    for (const char c : text.bytes().substr(from, end - from)) {
      constexpr char kHex[] = "0123456789abcdef";
      constexpr std::string_view kShort = "\b\f\n\r\t\"\\";
      const size_t at = kShort.find(c);
      if (at != kShort.npos) {
        spelled += {'\\', "bfnrt\"\\"[at]};
      } else if (static_cast<unsigned char>(c) < 0x20) {
        spelled += {'\\', 'u', '0', '0', kHex[c >> 4], kHex[c & 15]};
      } else {
        spelled += c;
      }
    }
    out.append(spelled, hand);
  });
  add(out, "\"");
}

// A key that is no text is written as one.
bool quote_key(const Value& key, Text& out) {
  if (const Text* text = as<Text>(key)) {
    quote_text(*text, out);
    return true;
  }
  add(out, "\"");
  const bool fine = as<List>(key) == nullptr && to_json(key, -1, false, out, kMaxDepth - 1);
  add(out, "\"");
  return fine;
}

bool list_to_json(const List& list, int indent, bool sort_keys, Text& out, int depth) {
  add(out, "[");
  bool fine = list.shape != List::Shape::kGenerator;
  for (size_t i = 0; fine && i < list.items.size(); ++i) {
    add(out, i == 0 ? "" : (indent < 0 ? ", " : ","));
    add_line(out, indent, depth + 1);
    fine = to_json(list.items[i], indent, sort_keys, out, depth + 1);
  }
  if (!list.items.empty()) {
    add_line(out, indent, depth);
  }
  add(out, "]");
  return fine;
}

bool dict_to_json(const Dict& dict, int indent, bool sort_keys, Text& out, int depth) {
  std::vector<std::pair<Value, Value>> entries = dict.entries;
  if (sort_keys) {
    std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
      return text_of(a.first) < text_of(b.first);
    });
  }
  add(out, "{");
  bool fine = true;
  for (size_t i = 0; fine && i < entries.size(); ++i) {
    add(out, i == 0 ? "" : (indent < 0 ? ", " : ","));
    add_line(out, indent, depth + 1);
    fine = quote_key(entries[i].first, out);
    add(out, ": ");
    fine = fine && to_json(entries[i].second, indent, sort_keys, out, depth + 1);
  }
  if (!entries.empty()) {
    add_line(out, indent, depth);
  }
  add(out, "}");
  return fine;
}

}  // namespace

bool to_json(const Value& value, int indent, bool sort_keys, Text& out, int depth) {
  if (depth >= kMaxDepth || is_undefined(value)) {
    return false;
  }
  if (const Text* text = as<Text>(value)) {
    quote_text(*text, out);
    return true;
  }
  if (const List* list = as<List>(value)) {
    return list_to_json(*list, indent, sort_keys, out, depth);
  }
  if (const Dict* dict = as<Dict>(value)) {
    return dict_to_json(*dict, indent, sort_keys, out, depth);
  }
  if (const bool* flag = std::get_if<bool>(&value)) {
    add(out, *flag ? "true" : "false");
    return true;
  }
  if (is_none(value)) {
    add(out, "null");
    return true;
  }
  double number = 0;
  const bool fine = is_number(value, number);
  if (const double* real = std::get_if<double>(&value); real != nullptr && !std::isfinite(*real)) {
    add(out, std::isnan(number) ? "NaN" : (number < 0 ? "-Infinity" : "Infinity"));
  } else if (fine) {
    represent(value, out);
  }
  return fine;
}

}  // namespace penstock::llama::jinja
