// `| ...`
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "worker/engines/llama/template/builtins.h"
#include "worker/engines/llama/template/characters.h"
#include "worker/engines/llama/template/number_filters.h"

namespace penstock::llama::jinja {
namespace {

// Filters of texts take anything else as it would be printed.
const Text& as_text(Context& context, const Value& value) {
  static const Text kEmpty;
  if (const Text* text = as<Text>(value)) {
    return *text;
  }
  Text printed;
  print(value, printed);
  const Value made = context.text(std::move(printed));
  const Text* text = as<Text>(made);
  return text == nullptr ? kEmpty : *text;
}

template <Case Wanted>
Value cased(Context& context, const Value& subject, const Arguments&) {
  const Text& text = as_text(context, subject);
  return context.text(changed(text, in_case(text.bytes(), Wanted)));
}

Value trim(Context& context, const Value& subject, const Arguments& arguments) {
  return context.text(trimmed(as_text(context, subject), arguments.find(0, "chars"), true, true));
}

Value replace(Context& context, const Value& subject, const Arguments& arguments) {
  const Value* old = arguments.find(0, "old");
  const Value* with = arguments.find(1, "new");
  if (old == nullptr || with == nullptr) {
    return context.fail("replace needs what to replace, and by what");
  }
  const Text& text = as_text(context, subject);
  const Text& put = as_text(context, *with);
  const std::string_view sought = as_text(context, *old).bytes();
  const auto most = static_cast<int64_t>(text.size() / std::max<size_t>(sought.size(), 1) + 1);
  if (!context.spend(most * static_cast<int64_t>(put.size()))) {
    return Undefined{};
  }
  return context.text(
      replaced(text, sought, put, integer_argument(context, arguments, 2, "count", -1)));
}

Value indent(Context& context, const Value& subject, const Arguments& arguments) {
  const Value* given = arguments.find(0, "width");
  Text space;
  if (given != nullptr && as<Text>(*given) != nullptr) {
    space = *as<Text>(*given);
  } else {
    const int64_t width = integer_argument(context, arguments, 0, "width", 4);
    space.append(std::string(static_cast<size_t>(std::clamp<int64_t>(width, 0, 256)), ' '),
                 Hand::kTemplate);
  }
  const bool first = flag_argument(arguments, 1, "first", false);
  const bool blank = flag_argument(arguments, 2, "blank", false);
  const Text& text = as_text(context, subject);
  Text out;
  for (size_t from = 0; context.spend(static_cast<int64_t>(space.size()));) {
    const size_t end = std::min(text.bytes().find('\n', from), text.size());
    if (from == 0 ? first : (blank || end > from)) {
      out.append(space);
    }
    out.append_part(text, from, std::min(end + 1, text.size()) - from);
    if (end == text.size()) {
      break;
    }
    from = end + 1;
  }
  return context.text(std::move(out));
}

Value to_json_filter(Context& context, const Value& subject, const Arguments& arguments) {
  // Transformers' own: ensure_ascii comes first and is not carried out.
  const int64_t width = integer_argument(context, arguments, 1, "indent", -1);
  Text out;
  if (!to_json(subject, static_cast<int>(std::clamp<int64_t>(width, -1, 16)),
               flag_argument(arguments, 3, "sort_keys", false), out)) {
    return context.fail(std::string("tojson has no JSON for ") + kind_of(subject));
  }
  return context.text(std::move(out));
}

Value to_string(Context& context, const Value& subject, const Arguments&) {
  return as<Text>(subject) != nullptr ? subject : Value(&as_text(context, subject));
}

Value same(Context&, const Value& subject, const Arguments&) { return subject; }

Value default_of(Context& context, const Value& subject, const Arguments& arguments) {
  const bool replaces =
      is_undefined(subject) || (flag_argument(arguments, 1, "boolean", false) && !truth(subject));
  const Value* given = arguments.find(0, "default_value");
  return !replaces ? subject : given != nullptr ? *given : context.text("");
}

Value length(Context& context, const Value& subject, const Arguments&) {
  return length_of(context, subject);
}

Value first(Context& context, const Value& subject, const Arguments&) {
  std::vector<Value> items;
  context.items_of(subject, items);
  return items.empty() ? Value(Undefined{"the first of nothing"}) : items.front();
}

Value last(Context& context, const Value& subject, const Arguments&) {
  std::vector<Value> items;
  context.items_of(subject, items);
  return items.empty() ? Value(Undefined{"the last of nothing"}) : items.back();
}

Value reverse(Context& context, const Value& subject, const Arguments&) {
  std::vector<Value> items;
  context.items_of(subject, items);
  std::reverse(items.begin(), items.end());
  if (as<Text>(subject) == nullptr) {
    return context.list(std::move(items), List::Shape::kGenerator);
  }
  Text joined;
  for (const Value& character : items) {
    joined.append(*as<Text>(character));
  }
  return context.text(std::move(joined));
}

Value to_list(Context& context, const Value& subject, const Arguments&) {
  std::vector<Value> items;
  context.items_of(subject, items);
  return context.list(std::move(items));
}

Value items(Context& context, const Value& subject, const Arguments&) {
  std::vector<Value> pairs;
  const Dict* dict = as<Dict>(subject);
  if (dict == nullptr && !is_undefined(subject)) {
    return context.fail(std::string("items of ") + kind_of(subject));
  }
  for (size_t i = 0; dict != nullptr && i < dict->entries.size() && context.step(); ++i) {
    pairs.push_back(
        context.list({dict->entries[i].first, dict->entries[i].second}, List::Shape::kTuple));
  }
  return context.list(std::move(pairs), List::Shape::kGenerator);
}

// item.a.b for "a.b"; numbers are places.
Value by_path(Context& context, Value item, const Value& path) {
  if (as<Text>(path) == nullptr) {
    return item_of(context, item, path);
  }
  const Text* text = as<Text>(path);
  for (size_t from = 0; from <= text->size() && !context.failed();) {
    const size_t end = std::min(text->bytes().find('.', from), text->size());
    const std::string_view name = text->bytes().substr(from, end - from);
    int64_t place = 0;
    const auto read = std::from_chars(name.data(), name.data() + name.size(), place);
    const bool number = !name.empty() && read.ptr == name.data() + name.size();
    item =
        item_of(context, item, number ? Value(place) : context.text(text->part(from, end - from)));
    from = end + 1;
  }
  return item;
}

Value attribute(Context& context, const Value& subject, const Arguments& arguments) {
  return method_of(context, subject, text_argument(context, arguments, 0, "name", ""));
}

Arguments without_first(const Arguments& arguments, size_t count) {
  Arguments rest = arguments;
  rest.places.erase(rest.places.begin(), rest.places.begin() + static_cast<int64_t>(std::min(
                                                                   count, rest.places.size())));
  return rest;
}

Value map(Context& context, const Value& subject, const Arguments& arguments) {
  std::vector<Value> all;
  context.items_of(subject, all);
  const Value* path = arguments.find(SIZE_MAX, "attribute");
  const Value* absent = arguments.find(SIZE_MAX, "default");
  const Filter* filter =
      path != nullptr ? nullptr : find_filter(text_argument(context, arguments, 0, "filter", ""));
  if (path == nullptr && filter == nullptr) {
    return context.fail("map needs attribute=, or the name of a filter that there is");
  }
  const Arguments rest = without_first(arguments, 1);
  for (Value& item : all) {
    if (!context.step()) {
      break;
    }
    item = path != nullptr ? by_path(context, item, *path) : filter->apply(context, item, rest);
    if (path != nullptr && absent != nullptr && is_undefined(item)) {
      item = *absent;
    }
  }
  return context.list(std::move(all), List::Shape::kGenerator);
}

template <bool ByAttribute, bool Wanted>
Value choose(Context& context, const Value& subject, const Arguments& arguments) {
  std::vector<Value> all;
  context.items_of(subject, all);
  constexpr size_t kTestAt = ByAttribute ? 1 : 0;
  if (ByAttribute && arguments.places.empty()) {
    return context.fail("selectattr and rejectattr need the name of an attribute");
  }
  const bool tests = arguments.places.size() > kTestAt;
  const Test* test = tests ? find_test(text_of(arguments.places[kTestAt])) : nullptr;
  if (tests && test == nullptr) {
    return context.fail("there is no test of that name");
  }
  const Arguments rest = without_first(arguments, kTestAt + 1);
  std::vector<Value> chosen;
  for (const Value& item : all) {
    if (!context.step()) {
      break;
    }
    const Value judged = ByAttribute ? by_path(context, item, arguments.places[0]) : item;
    if ((test != nullptr ? test->holds(context, judged, rest) : truth(judged)) == Wanted) {
      chosen.push_back(item);
    }
  }
  return context.list(std::move(chosen), List::Shape::kGenerator);
}

Value join(Context& context, const Value& subject, const Arguments& arguments) {
  std::vector<Value> all;
  context.items_of(subject, all);
  const Value* between = arguments.find(0, "d");
  const Value* path = arguments.find(1, "attribute");
  const Text& gap =
      between == nullptr ? as_text(context, context.text("")) : as_text(context, *between);
  Text joined;
  for (size_t i = 0; i < all.size(); ++i) {
    const Value item = path == nullptr ? all[i] : by_path(context, all[i], *path);
    const Text& text = as_text(context, item);
    if (!context.spend(static_cast<int64_t>(gap.size() + text.size()))) {
      return Undefined{};
    }
    joined.append(i == 0 ? Text() : gap);
    joined.append(text);
  }
  return context.text(std::move(joined));
}

// What is compared for sort, unique, min and max: texts without case unless asked otherwise.
struct Key {
  Value item;
  Value key;
};

std::vector<Key> keys_of(Context& context, const Value& subject, const Value* path,
                         bool case_sensitive) {
  std::vector<Value> all;
  context.items_of(subject, all);
  std::vector<Key> keys;
  for (const Value& item : all) {
    Value key = path == nullptr || is_none(*path) ? item : by_path(context, item, *path);
    if (as<Text>(key) != nullptr && !case_sensitive) {
      key = cased<Case::kLower>(context, key, {});
    }
    keys.push_back({item, key});
  }
  return keys;
}

bool have_order(Context& context, const std::vector<Key>& keys) {
  int result = 0;
  for (size_t i = 1; i < keys.size(); ++i) {
    if (!order(keys[0].key, keys[i].key, result)) {
      context.fail(std::string(kind_of(keys[0].key)) + " and " + kind_of(keys[i].key) +
                   " have no order");
    }
  }
  const auto count = static_cast<int64_t>(keys.size());
  return context.step(count * (64 - __builtin_clzll(static_cast<uint64_t>(count) | 1U)));
}

bool key_before(const Key& a, const Key& b) {
  int result = 0;
  order(a.key, b.key, result);
  return result < 0;
}

Value sorted(Context& context, std::vector<Key> keys, bool falling) {
  if (!have_order(context, keys)) {
    return Undefined{};
  }
  std::stable_sort(keys.begin(), keys.end(), [&](const Key& a, const Key& b) {
    return falling ? key_before(b, a) : key_before(a, b);
  });
  std::vector<Value> items;
  items.reserve(keys.size());
  for (const Key& key : keys) {
    items.push_back(key.item);
  }
  return context.list(std::move(items));
}

Value sort(Context& context, const Value& subject, const Arguments& arguments) {
  return sorted(context,
                keys_of(context, subject, arguments.find(2, "attribute"),
                        flag_argument(arguments, 1, "case_sensitive", false)),
                flag_argument(arguments, 0, "reverse", false));
}

Value dict_sort(Context& context, const Value& subject, const Arguments& arguments) {
  const bool by_value = text_argument(context, arguments, 1, "by", "key") == "value";
  const Value path = int64_t{by_value ? 1 : 0};
  return sorted(context,
                keys_of(context, items(context, subject, {}), &path,
                        flag_argument(arguments, 0, "case_sensitive", false)),
                flag_argument(arguments, 2, "reverse", false));
}

Value unique(Context& context, const Value& subject, const Arguments& arguments) {
  std::vector<Key> kept;
  for (const Key& each : keys_of(context, subject, arguments.find(1, "attribute"),
                                 flag_argument(arguments, 0, "case_sensitive", false))) {
    const bool known = std::any_of(kept.begin(), kept.end(),
                                   [&](const Key& other) { return equal(other.key, each.key); });
    if (!context.step(static_cast<int64_t>(kept.size()))) {
      break;
    }
    if (!known) {
      kept.push_back(each);
    }
  }
  std::vector<Value> items;
  items.reserve(kept.size());
  for (const Key& key : kept) {
    items.push_back(key.item);
  }
  return context.list(std::move(items), List::Shape::kGenerator);
}

template <bool Largest>
Value extreme(Context& context, const Value& subject, const Arguments& arguments) {
  const std::vector<Key> keys = keys_of(context, subject, arguments.find(1, "attribute"),
                                        flag_argument(arguments, 0, "case_sensitive", false));
  if (keys.empty() || !have_order(context, keys)) {
    return Undefined{"the extreme of nothing"};
  }
  return (Largest ? std::max_element(keys.begin(), keys.end(), key_before)
                  : std::min_element(keys.begin(), keys.end(), key_before))
      ->item;
}

Value sum(Context& context, const Value& subject, const Arguments& arguments) {
  std::vector<Value> all;
  context.items_of(subject, all);
  const Value* path = arguments.find(0, "attribute");
  const Value* start = arguments.find(1, "start");
  Value total = start == nullptr ? Value(int64_t{0}) : *start;
  for (const Value& item : all) {
    if (!context.step()) {
      break;
    }
    total = binary(context, "+", total,
                   path == nullptr || is_none(*path) ? item : by_path(context, item, *path));
  }
  return total;
}

Value word_count(Context& context, const Value& subject, const Arguments&) {
  int64_t words = 0;
  for (std::string_view rest = as_text(context, subject).bytes(); context.step();) {
    rest.remove_prefix(leading_space(rest));
    if (rest.empty()) {
      break;
    }
    ++words;
    while (!rest.empty() && leading_space(rest) == 0) {
      rest.remove_prefix(offset_of(rest, 1));
    }
  }
  return words;
}

// Sorted by name.
constexpr std::array kFilters = {
    Filter{"abs", absolute},
    Filter{"attr", attribute},
    Filter{"capitalize", cased<Case::kCapital>},
    Filter{"count", length},
    Filter{"d", default_of},
    Filter{"default", default_of},
    Filter{"dictsort", dict_sort},
    Filter{"first", first},
    Filter{"float", to_float},
    Filter{"indent", indent},
    Filter{"int", to_int},
    Filter{"items", items},
    Filter{"join", join},
    Filter{"last", last},
    Filter{"length", length},
    Filter{"list", to_list},
    Filter{"lower", cased<Case::kLower>},
    Filter{"map", map},
    Filter{"max", extreme<true>},
    Filter{"min", extreme<false>},
    Filter{"reject", choose<false, false>},
    Filter{"rejectattr", choose<true, false>},
    Filter{"replace", replace},
    Filter{"reverse", reverse},
    Filter{"round", round},
    Filter{"safe", same},
    Filter{"select", choose<false, true>},
    Filter{"selectattr", choose<true, true>},
    Filter{"sort", sort},
    Filter{"string", to_string},
    Filter{"sum", sum},
    Filter{"title", cased<Case::kWords>},
    Filter{"tojson", to_json_filter},
    Filter{"trim", trim},
    Filter{"unique", unique},
    Filter{"upper", cased<Case::kUpper>},
    Filter{"wordcount", word_count},
};
constexpr auto kByName = [](const Filter& a, const Filter& b) { return a.name < b.name; };
static_assert(std::is_sorted(kFilters.begin(), kFilters.end(), kByName));

}  // namespace

const Filter* find_filter(std::string_view name) {
  const auto* found =
      std::lower_bound(kFilters.begin(), kFilters.end(), Filter{name, nullptr}, kByName);
  return found != kFilters.end() && found->name == name ? found : nullptr;
}

}  // namespace penstock::llama::jinja
