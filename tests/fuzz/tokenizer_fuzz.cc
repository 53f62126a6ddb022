// Any bytes given as a tokenizer.json, or as a text to a good one, must do no harm, and a text must
// come back the same. The first byte chooses: an even one, the rest is a file; an odd one, the rest
// is a text.
#include <cstdlib>

#include "worker/engines/llama/tokenizer.h"

namespace {

// All 256 bytes, a few merges, Llama 3's pattern.
std::string small_tokenizer() {
  std::string vocabulary;
  int id = 0;
  int other = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    constexpr char kHex[] = "0123456789abcdef";
    const int code = printable ? byte : other++;
    vocabulary += std::string("\"\\u0") + kHex[code >> 8] + kHex[code >> 4 & 15] + kHex[code & 15] +
                  "\":" + std::to_string(id++) + ",";
  }
  return R"({"model":{"type":"BPE","ignore_merges":true,"vocab":{)" + vocabulary +
         R"("ab":256,"abc":257,"aa":258,"aaaa":259},"merges":["a b","ab c",["a","a"],["aa","aa"]]},)"
         R"("added_tokens":[{"id":260,"content":"<|x|>","special":false}],)"
         R"("pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","behavior":"Isolated","pattern":{"Regex":)"
         R"("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},)"
         R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]}})";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using penstock::llama::Tokenizer;
  static const Tokenizer kGood = *Tokenizer::parse(small_tokenizer(), "small");
  if (size == 0) {
    return 0;
  }
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 0) {
    const auto parsed = Tokenizer::parse(rest, "fuzz");
    if (parsed) {
      static_cast<void>(parsed->decode(parsed->encode("text \xFF")));
    }
    return 0;
  }
  if (kGood.decode(kGood.encode(rest)) != rest ||
      kGood.decode(kGood.encode_with_control(rest)) != rest) {
    std::abort();
  }
  return 0;
}
