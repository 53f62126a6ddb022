// Reads .safetensors files without trusting them.
//
//     8 bytes    N, little-endian: length of the header
//     N bytes    JSON: {"tensor name": {"dtype": "BF16", "shape": [4, 8], "data_offsets": [0, 64]},
//     "__metadata__": {...}} the rest   tensor data; data_offsets count from here and must cover it
//     without holes or overlaps
//
// Source: the format section of the safetensors README (huggingface/safetensors). Like the
// reference reader this one refuses headers over 100 MB, duplicate names, and files whose data is
// not exactly what the header lists: nothing can hide between tensors, and a file cut short is
// found at once, not in the middle of a job.
#pragma once

#include <simdjson.h>

#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "shared/base/result.h"
#include "worker/engines/llama/tensor.h"

namespace penstock::llama {

struct TensorEntry {
  std::string dtype_name;      // as in the file
  std::optional<DType> dtype;  // none: a known format that cannot be computed with here
  std::vector<int64_t> shape;
  std::span<const std::byte> data;  // within the file; not necessarily aligned
};

// "[4, 8]"
std::string shape_text(const std::vector<int64_t>& shape);

class Safetensors {
 public:
  // Maps the file read-only. Tensor data is read from disk as it is used; a file made shorter while
  // mapped makes the process die of SIGBUS, so replace model files by renaming, never in place.
  static Result<Safetensors> open(const std::string& path);

  // The same from memory, which must outlive the result. `name` is for messages.
  static Result<Safetensors> parse(std::span<const std::byte> file, const std::string& name);

  Safetensors(Safetensors&& other) noexcept;
  Safetensors& operator=(Safetensors&& other) noexcept;
  ~Safetensors();

  const std::string& name() const { return name_; }

  // All tensors by name, in the order of names.
  const std::map<std::string, TensorEntry, std::less<>>& tensors() const { return tensors_; }

 private:
  Safetensors() = default;

  Status read_tensors(simdjson::dom::object header, std::span<const std::byte> data);

  std::string name_;
  std::span<const std::byte> mapped_;  // to unmap; empty if not ours
  std::map<std::string, TensorEntry, std::less<>> tensors_;
};

}  // namespace penstock::llama
