// Renders chat templates for compare_chat_templates.py, which renders them with Jinja itself.
//
// A line of standard input is {"template": text, "given": {name: value}}; every text in `given` is
// a caller's, but for those called ..._token. A line of output is {"text": rendered, "callers":
// [from, end, ...] in bytes}, or
// {"error": message}.
#include <simdjson.h>

#include <iostream>

#include "worker/engines/llama/template/template.h"

namespace {

using namespace penstock::llama;
namespace dom = simdjson::dom;

jinja::Value value_of(dom::element element, Hand hand, jinja::Heap& heap) {
  switch (element.type()) {
    case dom::element_type::STRING:
      return heap.add(Text(element.get_string().value(), hand));
    case dom::element_type::BOOL:
      return element.get_bool().value();
    case dom::element_type::INT64:
    case dom::element_type::UINT64:
      return element.get_int64().value();
    case dom::element_type::DOUBLE:
      return element.get_double().value();
    case dom::element_type::ARRAY: {
      jinja::List list;
      for (const dom::element item : element.get_array()) {
        list.items.push_back(value_of(item, hand, heap));
      }
      return heap.add(std::move(list));
    }
    case dom::element_type::OBJECT: {
      jinja::Dict dict;
      for (const auto& [key, value] : element.get_object()) {
        dict.set(heap.add(Text(key, Hand::kTemplate)), value_of(value, hand, heap));
      }
      return heap.add(std::move(dict));
    }
    case dom::element_type::NULL_VALUE:
      break;
  }
  return jinja::None{};
}

std::string quoted(const std::string& text) {
  Text json;
  const Text made(text, Hand::kTemplate);
  jinja::to_json(&made, -1, false, json);
  return std::string(json.bytes());
}

std::string answer(dom::element job) {
  const auto parsed = jinja::Template::parse(job["template"].get_string().value());
  if (!parsed) {
    return "{\"error\":" + quoted(parsed.error().message) + "}";
  }
  const auto given = [&](jinja::Heap& heap) {
    std::vector<std::pair<std::string_view, jinja::Value>> names;
    for (const auto& [name, value] : job["given"].get_object()) {
      const Hand hand = name.ends_with("_token") ? Hand::kTemplate : Hand::kCaller;
      names.emplace_back(name, value_of(value, hand, heap));
    }
    return names;
  };
  const auto rendered = parsed->render(given, 1'750'000'000);
  if (const auto* trouble = std::get_if<jinja::Trouble>(&rendered)) {
    return "{\"error\":" +
           quoted("line " + std::to_string(trouble->line) + ": " + trouble->message) + "}";
  }
  const Text& text = std::get<Text>(rendered);
  std::string callers;
  text.each_run([&](size_t from, size_t end, Hand hand) {
    if (hand == Hand::kCaller) {
      callers += (callers.empty() ? "" : ",") + std::to_string(from) + "," + std::to_string(end);
    }
  });
  return "{\"text\":" + quoted(std::string(text.bytes())) + ",\"callers\":[" + callers + "]}";
}

}  // namespace

int main() {
  dom::parser parser;
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << answer(parser.parse(line).value()) << std::endl;
  }
}
