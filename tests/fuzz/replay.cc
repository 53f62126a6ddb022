// What runs a fuzz target without libFuzzer: on each seed, whole and cut at sixteen places.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int main(int argc, char** argv) {
  constexpr size_t kParts = 16;
  size_t seeds = 0;
  for (int i = 1; i < argc; ++i) {
    for (const auto& file : std::filesystem::directory_iterator(argv[i])) {
      std::ifstream in(file.path(), std::ios::binary);
      const std::string seed{std::istreambuf_iterator<char>(in), {}};
      for (size_t part = 0; part <= kParts; ++part) {
        // A copy of its own length: what reads past the end is seen by a sanitizer.
        const std::string input(seed, 0, seed.size() * part / kParts);
        LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
      }
      ++seeds;
    }
  }
  std::printf("%zu seeds\n", seeds);
  return seeds == 0 ? 1 : 0;
}
