// Methods of texts, lists and mappings.
#include <algorithm>
#include <array>

#include "worker/engines/llama/template/bound_method.h"
#include "worker/engines/llama/template/builtins.h"
#include "worker/engines/llama/template/characters.h"

namespace penstock::llama::jinja {
namespace {

const Text& self_text(const Value& self) { return *as<Text>(self); }

template <bool Left, bool Right>
Value strip(Context& context, const Value& self, const Arguments& arguments) {
  return context.text(trimmed(self_text(self), arguments.find(0, "chars"), Left, Right));
}

template <Case Wanted>
Value in_case_of(Context& context, const Value& self, const Arguments&) {
  return context.text(changed(self_text(self), in_case(self_text(self).bytes(), Wanted)));
}

// Whether the text begins or ends with the argument, or with one of a list of them.
template <bool Begins>
Value has_end(Context& context, const Value& self, const Arguments& arguments) {
  const Value* given = arguments.find(0, "prefix");
  if (given == nullptr) {
    return context.fail("startswith and endswith need a string");
  }
  const List* several = as<List>(*given);
  const std::vector<Value> ends = several != nullptr ? several->items : std::vector{*given};
  const std::string_view text = text_of(self);
  return std::any_of(ends.begin(), ends.end(), [&](const Value& end) {
    if (as<Text>(end) == nullptr) {
      context.fail(std::string("startswith and endswith need a string, not ") + kind_of(end));
    }
    return Begins ? text.starts_with(text_of(end)) : text.ends_with(text_of(end));
  });
}

Value remove_prefix(Context& context, const Value& self, const Arguments& arguments) {
  const Text& text = self_text(self);
  const std::string_view end = text_argument(context, arguments, 0, "prefix", "");
  const size_t cut = text.bytes().starts_with(end) ? end.size() : 0;
  return context.text(text.part(cut, text.size() - cut));
}

Value remove_suffix(Context& context, const Value& self, const Arguments& arguments) {
  const Text& text = self_text(self);
  const std::string_view end = text_argument(context, arguments, 0, "suffix", "");
  const size_t cut = text.bytes().ends_with(end) ? end.size() : 0;
  return context.text(text.part(0, text.size() - cut));
}

Value replace(Context& context, const Value& self, const Arguments& arguments) {
  const Value* with = arguments.find(1, "new");
  if (with == nullptr || as<Text>(*with) == nullptr) {
    return context.fail("replace needs two strings");
  }
  const std::string_view old = text_argument(context, arguments, 0, "old", "");
  const Text& text = self_text(self);
  const auto most = static_cast<int64_t>(text.size() / std::max<size_t>(old.size(), 1) + 1);
  if (!context.spend(most * static_cast<int64_t>(text_of(*with).size()))) {
    return Undefined{};
  }
  return context.text(
      replaced(text, old, self_text(*with), integer_argument(context, arguments, 2, "count", -1)));
}

// By white space, runs of it together.
void split_words(Context& context, const Text& text, int64_t most, std::vector<Value>& parts) {
  const std::string_view bytes = text.bytes();
  size_t from = leading_space(bytes);
  while (from < bytes.size() && context.step()) {
    size_t end = from;
    while (end < bytes.size() && leading_space(bytes.substr(end)) == 0) {
      end += offset_of(bytes.substr(end), 1);
    }
    if (most-- == 0) {
      end = bytes.size();
    }
    parts.push_back(context.text(text.part(from, end - from)));
    from = end + leading_space(bytes.substr(end));
  }
}

void split_by(Context& context, const Text& text, std::string_view gap, int64_t most,
              std::vector<Value>& parts) {
  size_t from = 0;
  while (context.step()) {
    const size_t found = most-- == 0 ? std::string_view::npos : text.bytes().find(gap, from);
    const size_t end = std::min(found, text.size());
    parts.push_back(context.text(text.part(from, end - from)));
    if (found == std::string_view::npos) {
      break;
    }
    from = end + gap.size();
  }
}

Value split(Context& context, const Value& self, const Arguments& arguments) {
  const Value* gap = arguments.find(0, "sep");
  const int64_t most = integer_argument(context, arguments, 1, "maxsplit", -1);
  std::vector<Value> parts;
  if (gap == nullptr || is_none(*gap)) {
    split_words(context, self_text(self), most, parts);
  } else if (text_of(*gap).empty()) {
    return context.fail("split needs a separator that is a string and not empty");
  } else {
    split_by(context, self_text(self), text_of(*gap), most, parts);
  }
  return context.list(std::move(parts));
}

Value rsplit(Context& context, const Value& self, const Arguments& arguments) {
  const std::string_view gap = text_argument(context, arguments, 0, "sep", "");
  int64_t most = integer_argument(context, arguments, 1, "maxsplit", -1);
  if (gap.empty() || most < 0) {
    return split(context, self, arguments);
  }
  const Text& text = self_text(self);
  std::vector<Value> parts;
  size_t end = text.size();
  for (; most > 0 && context.step(); --most) {
    const size_t at =
        end < gap.size() ? std::string_view::npos : text.bytes().rfind(gap, end - gap.size());
    if (at == std::string_view::npos) {
      break;
    }
    parts.push_back(context.text(text.part(at + gap.size(), end - at - gap.size())));
    end = at;
  }
  parts.push_back(context.text(text.part(0, end)));
  std::reverse(parts.begin(), parts.end());
  return context.list(std::move(parts));
}

Value split_lines(Context& context, const Value& self, const Arguments& arguments) {
  const Text& text = self_text(self);
  const bool keep = flag_argument(arguments, 0, "keepends", false);
  std::vector<Value> parts;
  for (size_t from = 0; from < text.size() && context.step();) {
    const size_t end =
        std::min(text.bytes().find_first_of("\n\r\v\f\x1c\x1d\x1e", from), text.size());
    size_t next = std::min(end + 1, text.size());
    next += text.bytes().substr(end).starts_with("\r\n") ? 1 : 0;
    parts.push_back(context.text(text.part(from, (keep ? next : end) - from)));
    from = next;
  }
  return context.list(std::move(parts));
}

template <bool Last>
Value find_in(Context& context, const Value& self, const Arguments& arguments) {
  const std::string_view sought = text_argument(context, arguments, 0, "sub", "");
  const std::string_view text = text_of(self);
  const size_t at = Last ? text.rfind(sought) : text.find(sought);
  return at == text.npos ? int64_t{-1} : length_of(text.substr(0, at));
}

Value count_in(Context& context, const Value& self, const Arguments& arguments) {
  const Value* sought = arguments.find(0, "sub");
  int64_t count = 0;
  if (const List* list = as<List>(self); list != nullptr && sought != nullptr) {
    return static_cast<int64_t>(
        std::count_if(list->items.begin(), list->items.end(),
                      [&](const Value& item) { return equal(item, *sought); }));
  }
  const std::string_view part = text_argument(context, arguments, 0, "sub", "");
  const std::string_view text = text_of(self);
  if (part.empty()) {
    return length_of(text) + 1;
  }
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + part.size())) {
    ++count;
  }
  return count;
}

Value join(Context& context, const Value& self, const Arguments& arguments) {
  if (arguments.places.size() != 1) {
    return context.fail("join needs one list of strings");
  }
  std::vector<Value> parts;
  context.items_of(arguments.places[0], parts);
  Text joined;
  for (size_t i = 0; i < parts.size(); ++i) {
    const Text* part = as<Text>(parts[i]);
    if (part == nullptr) {
      return context.fail(std::string("join takes strings, not ") + kind_of(parts[i]));
    }
    if (!context.spend(static_cast<int64_t>(part->size() + text_of(self).size()))) {
      return Undefined{};
    }
    joined.append(i == 0 ? Text() : self_text(self));
    joined.append(*part);
  }
  return context.text(std::move(joined));
}

template <bool (*Has)(char)>
Value all_are(Context&, const Value& self, const Arguments&) {
  const std::string_view text = text_of(self);
  return !text.empty() && std::all_of(text.begin(), text.end(), Has);
}
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z'; }
bool is_either(char c) { return is_digit(c) || is_letter(c); }
Value is_space(Context&, const Value& self, const Arguments&) {
  return !text_of(self).empty() && leading_space(text_of(self)) == text_of(self).size();
}

Value get(Context& context, const Value& self, const Arguments& arguments) {
  const Value* key = arguments.find(0, "key");
  const Value* absent = arguments.find(1, "default");
  if (key == nullptr) {
    return context.fail("get needs a key");
  }
  const Value* found = as<Dict>(self)->find(*key);
  return found != nullptr ? *found : absent != nullptr ? *absent : Value(None{});
}

enum class Of { kKeys, kValues, kItems };
template <Of Wanted>
Value entries(Context& context, const Value& self, const Arguments&) {
  std::vector<Value> all;
  for (const auto& [key, value] : as<Dict>(self)->entries) {
    if (!context.step()) {
      break;
    }
    all.push_back(Wanted == Of::kKeys     ? key
                  : Wanted == Of::kValues ? value
                                          : context.list({key, value}, List::Shape::kTuple));
  }
  return context.list(std::move(all));
}

Value index_in(Context& context, const Value& self, const Arguments& arguments) {
  const List* list = as<List>(self);
  for (size_t i = 0; !arguments.places.empty() && i < list->items.size(); ++i) {
    if (equal(list->items[i], arguments.places[0])) {
      return static_cast<int64_t>(i);
    }
  }
  return context.fail("index: the list has no such item");
}

// Each sorted by name.
constexpr std::array kTextMethods = {
    Method{"capitalize", in_case_of<Case::kCapital>},
    Method{"count", count_in},
    Method{"endswith", has_end<false>},
    Method{"find", find_in<false>},
    Method{"isalnum", all_are<is_either>},
    Method{"isalpha", all_are<is_letter>},
    Method{"isdigit", all_are<is_digit>},
    Method{"isspace", is_space},
    Method{"join", join},
    Method{"lower", in_case_of<Case::kLower>},
    Method{"lstrip", strip<true, false>},
    Method{"removeprefix", remove_prefix},
    Method{"removesuffix", remove_suffix},
    Method{"replace", replace},
    Method{"rfind", find_in<true>},
    Method{"rsplit", rsplit},
    Method{"rstrip", strip<false, true>},
    Method{"split", split},
    Method{"splitlines", split_lines},
    Method{"startswith", has_end<true>},
    Method{"strip", strip<true, true>},
    Method{"title", in_case_of<Case::kTitle>},
    Method{"upper", in_case_of<Case::kUpper>},
};
constexpr std::array kListMethods = {Method{"count", count_in}, Method{"index", index_in}};
constexpr std::array kDictMethods = {Method{"get", get}, Method{"items", entries<Of::kItems>},
                                     Method{"keys", entries<Of::kKeys>},
                                     Method{"values", entries<Of::kValues>}};

Value loop_cycle(Context& context, const Value& self, const Arguments& arguments) {
  if (arguments.places.empty()) {
    return context.fail("loop.cycle needs something to go through");
  }
  const auto index = static_cast<size_t>(std::get<Loop*>(self)->index0);
  return arguments.places[index % arguments.places.size()];
}

Value loop_changed(Context&, const Value& self, const Arguments& arguments) {
  Loop& loop = *std::get<Loop*>(self);
  const auto& now = arguments.places;
  const auto& before = loop.changed_value;
  const bool same = loop.has_changed_value && now.size() == before.size() &&
                    std::equal(now.begin(), now.end(), before.begin(), equal);
  loop.has_changed_value = true;
  loop.changed_value = now;
  return !same;
}
constexpr std::array kLoopMethods = {Method{"changed", loop_changed}, Method{"cycle", loop_cycle}};

Value member_of(const Loop& loop, std::string_view name) {
  const auto length = static_cast<int64_t>(loop.items->size());
  const auto at = [&](int64_t index) {
    return index >= 0 && index < length ? (*loop.items)[static_cast<size_t>(index)]
                                        : Value(Undefined{"an item"});
  };
  const std::pair<std::string_view, Value> members[] = {
      {"index", loop.index0 + 1},
      {"index0", loop.index0},
      {"revindex", length - loop.index0},
      {"revindex0", length - loop.index0 - 1},
      {"first", loop.index0 == 0},
      {"last", loop.index0 + 1 == length},
      {"length", length},
      {"depth", int64_t{1}},  // of recursion, which there is none of
      {"depth0", int64_t{0}},
      {"previtem", at(loop.index0 - 1)},
      {"nextitem", at(loop.index0 + 1)},
  };
  for (const auto& [known, value] : members) {
    if (known == name) {
      return value;
    }
  }
  return Undefined{name};
}

}  // namespace

Value method_of(Context& context, const Value& subject, std::string_view name) {
  if (as<Text>(subject) != nullptr) {
    return bound_method(context, kTextMethods, subject, name);
  }
  if (as<Dict>(subject) != nullptr) {
    return bound_method(context, kDictMethods, subject, name);
  }
  if (as<List>(subject) != nullptr) {
    return bound_method(context, kListMethods, subject, name);
  }
  if (const auto* loop = std::get_if<Loop*>(&subject)) {
    const Value method = bound_method(context, kLoopMethods, subject, name);
    return is_undefined(method) ? member_of(**loop, name) : method;
  }
  return Undefined{name};
}

}  // namespace penstock::llama::jinja
