#include "worker/engines/llama/template/context.h"

#include "worker/engines/llama/unicode_class.h"

namespace penstock::llama::jinja {

Value Context::fail(std::string message, Trouble::Kind kind) {
  if (!trouble_) {
    trouble_ = Trouble{kind, std::move(message), line_};
  }
  return Undefined{};
}

bool Context::step(int64_t steps) {
  steps_ += steps;
  if (steps_ > limits_.steps) {
    fail("it takes more than " + std::to_string(limits_.steps) + " steps", Trouble::Kind::kTooMuch);
  }
  return !failed();
}

bool Context::spend(int64_t bytes) {
  bytes_ += bytes;
  if (bytes_ > limits_.bytes) {
    fail("it makes more than " + std::to_string(limits_.bytes) + " bytes", Trouble::Kind::kTooMuch);
  }
  return !failed();
}

bool Context::enter() {
  if (++depth_ > limits_.depth) {
    fail("it nests deeper than " + std::to_string(limits_.depth), Trouble::Kind::kTooMuch);
  }
  return step();
}

Value Context::text(Text text) {
  constexpr int64_t kOverhead = sizeof(Text);
  if (!spend(static_cast<int64_t>(text.size()) + kOverhead)) {
    return Undefined{};
  }
  return heap_.add(std::move(text));
}

Value Context::list(std::vector<Value> items, List::Shape shape) {
  if (!spend(static_cast<int64_t>(items.size() * sizeof(Value) + sizeof(List)))) {
    return Undefined{};
  }
  return heap_.add(List{std::move(items), shape});
}

Value Context::dict(Dict dict) {
  if (!spend(static_cast<int64_t>(dict.entries.size() * 2 * sizeof(Value) + sizeof(Dict)))) {
    return Undefined{};
  }
  return heap_.add(std::move(dict));
}

bool Context::items_of(const Value& value, std::vector<Value>& items) {
  if (const List* list = as<List>(value)) {
    items = list->items;
  } else if (const Dict* dict = as<Dict>(value)) {
    for (const auto& entry : dict->entries) {
      items.push_back(entry.first);
    }
  } else if (const Text* text = as<Text>(value)) {
    for (size_t at = 0; at < text->size() && !failed();) {
      const size_t bytes = char_at(text->bytes(), at).bytes;
      items.push_back(this->text(text->part(at, bytes)));
      at += bytes;
    }
  } else if (!is_undefined(value)) {
    fail(std::string(kind_of(value)) + " cannot be gone through");
  }
  return step(static_cast<int64_t>(items.size())) &&
         spend(static_cast<int64_t>(items.size() * sizeof(Value)));
}

}  // namespace penstock::llama::jinja
