// What filters and methods share: their arguments, and changes to texts that keep whose hand wrote
// them.
#include "worker/engines/llama/template/builtins.h"
#include "worker/engines/llama/template/characters.h"

namespace penstock::llama::jinja {

std::string_view text_argument(Context& context, const Arguments& arguments, size_t place,
                               std::string_view name, std::string_view absent) {
  const Value* given = arguments.find(place, name);
  if (given == nullptr) {
    return absent;
  }
  if (as<Text>(*given) == nullptr && !is_undefined(*given)) {
    context.fail(std::string(name) + " must be a string, not " + kind_of(*given));
  }
  return text_of(*given);
}

int64_t integer_argument(Context& context, const Arguments& arguments, size_t place,
                         std::string_view name, int64_t absent) {
  const Value* given = arguments.find(place, name);
  int64_t number = absent;
  if (given != nullptr && !is_none(*given) && !is_integer(*given, number)) {
    context.fail(std::string(name) + " must be an integer, not " + kind_of(*given));
  }
  return number;
}

bool flag_argument(const Arguments& arguments, size_t place, std::string_view name, bool absent) {
  const Value* given = arguments.find(place, name);
  return given == nullptr ? absent : truth(*given);
}

Text replaced(const Text& text, std::string_view old, const Text& with, int64_t most) {
  Text result;
  const std::string_view bytes = text.bytes();
  size_t from = 0;
  if (old.empty()) {  // between all characters, and at both ends
    for (; most != 0 && from <= bytes.size(); --most) {
      const size_t character = offset_of(bytes.substr(from), 1);
      result.append(with);
      result.append_part(text, from, character);
      from += character == 0 ? 1 : character;
    }
    from = std::min(from, bytes.size());
  }
  while (!old.empty() && most-- != 0) {
    const size_t at = bytes.find(old, from);
    if (at == bytes.npos) {
      break;
    }
    result.append_part(text, from, at - from);
    result.append(with);
    from = at + old.size();
  }
  result.append_part(text, from, bytes.size() - from);
  return result;
}

Text trimmed(const Text& text, const Value* set, bool left, bool right) {
  const bool space = set == nullptr || is_none(*set);
  std::string_view rest = text.bytes();
  if (right) {
    rest.remove_suffix(space ? trailing_space(rest) : trailing_of(rest, text_of(*set)));
  }
  const size_t from = !left ? 0 : space ? leading_space(rest) : leading_of(rest, text_of(*set));
  return text.part(from, rest.size() - from);
}

Text changed(const Text& text, const std::string& bytes) {
  Text result;
  text.each_run([&](size_t from, size_t end, Hand hand) {
    result.append(std::string_view(bytes).substr(from, end - from), hand);
  });
  return result;
}

}  // namespace penstock::llama::jinja
