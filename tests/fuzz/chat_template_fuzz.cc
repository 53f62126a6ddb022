// Any bytes given as a chat template do no harm, whatever a caller says: they are refused, or
// render within their bounds to UTF-8 of which it is known who wrote it.
#include <cstdint>
#include <cstdlib>

#include "shared/base/utf8.h"
#include "worker/engines/llama/template/template.h"

namespace {

using namespace penstock::llama;

std::vector<std::pair<std::string_view, jinja::Value>> given(jinja::Heap& heap) {
  jinja::List messages;
  for (const char* role : {"system", "user", "assistant"}) {
    jinja::Dict message;
    message.set(heap.add(Text("role", Hand::kTemplate)), heap.add(Text(role, Hand::kTemplate)));
    message.set(heap.add(Text("content", Hand::kTemplate)),
                heap.add(Text(" <|e|> \xC3\xA9 'x'\n", Hand::kCaller)));
    messages.items.push_back(heap.add(std::move(message)));
  }
  return {{"messages", heap.add(std::move(messages))},
          {"m", heap.add(Text("caf\xC3\xA9 \xF0\x9F\x98\x80", Hand::kCaller))},
          {"add_generation_prompt", true}};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  const auto parsed = jinja::Template::parse(source);
  if (!parsed) {
    return 0;
  }
  const jinja::Limits limits{.steps = 20'000, .bytes = 4 << 20, .depth = 200};
  const auto rendered = parsed->render(given, 1'750'000'000, limits);
  const Text* text = std::get_if<Text>(&rendered);
  if (text == nullptr) {
    return 0;
  }
  size_t last = 0;
  text->each_run([&](size_t from, size_t end, Hand) {
    if (from != last || end <= from) {
      std::abort();
    }
    last = end;
  });
  if (last != text->size() ||
      penstock::utf8_first_invalid(text->bytes()) != std::string_view::npos) {
    std::abort();
  }
  return 0;
}
