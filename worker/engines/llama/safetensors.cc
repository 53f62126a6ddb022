#include "worker/engines/llama/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "shared/base/fd.h"
#include "worker/engines/llama/json_file.h"

namespace penstock::llama {
namespace {

namespace dom = simdjson::dom;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxDimensions = 8;

struct Format {
  std::string_view name;
  int64_t bytes;  // per element
  std::optional<DType> dtype;
};
constexpr Format kFormats[] = {
    {"F32", 4, DType::kF32}, {"F16", 2, DType::kF16}, {"BF16", 2, DType::kBF16},
    {"BOOL", 1, {}},         {"U8", 1, {}},           {"I8", 1, {}},
    {"F8_E5M2", 1, {}},      {"F8_E4M3", 1, {}},      {"U16", 2, {}},
    {"I16", 2, {}},          {"U32", 4, {}},          {"I32", 4, {}},
    {"U64", 8, {}},          {"I64", 8, {}},          {"F64", 8, {}},
    {"C64", 8, {}},
};

Error about(const std::string& file, std::string_view tensor, const std::string& what) {
  return Error{file + ": tensor " + quote(tensor) + " " + what};
}

Result<std::vector<int64_t>> read_shape(dom::element entry, const std::string& file,
                                        std::string_view tensor) {
  dom::array array;
  if (entry["shape"].get(array) != simdjson::SUCCESS || array.size() > kMaxDimensions) {
    return about(file, tensor, "has no shape; expected an array of at most 8 integers");
  }
  std::vector<int64_t> shape;
  for (const dom::element element : array) {
    int64_t size = 0;
    if (element.get(size) != simdjson::SUCCESS || size < 0) {
      return about(file, tensor, "has a dimension that is not a whole number from 0 up");
    }
    shape.push_back(size);
  }
  return shape;
}

// Bytes the shape takes; none if that overflows.
std::optional<uint64_t> product(const std::vector<int64_t>& shape, int64_t element_bytes) {
  uint64_t bytes = static_cast<uint64_t>(element_bytes);
  for (const int64_t size : shape) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes)) {
      return std::nullopt;
    }
  }
  return bytes;
}

Result<std::pair<uint64_t, uint64_t>> read_offsets(dom::element entry, uint64_t data_bytes,
                                                   const std::string& file,
                                                   std::string_view tensor) {
  dom::array array;
  uint64_t begin = 0;
  uint64_t end = 0;
  if (entry["data_offsets"].get(array) != simdjson::SUCCESS || array.size() != 2 ||
      array.at(0).get(begin) != simdjson::SUCCESS || array.at(1).get(end) != simdjson::SUCCESS) {
    return about(file, tensor, "has no data_offsets; expected [begin, end]");
  }
  if (begin > end || end > data_bytes) {
    return about(file, tensor,
                 "has data_offsets [" + std::to_string(begin) + ", " + std::to_string(end) +
                     "], expected begin <= end <= " + std::to_string(data_bytes) +
                     ", the bytes of data in the file");
  }
  return std::pair(begin, end);
}

Result<TensorEntry> read_entry(dom::element entry, std::span<const std::byte> data,
                               const std::string& file, std::string_view tensor) {
  std::string_view dtype;
  if (entry["dtype"].get(dtype) != simdjson::SUCCESS) {
    return about(file, tensor, "has no dtype; expected a string such as \"BF16\"");
  }
  const auto* format = std::find_if(std::begin(kFormats), std::end(kFormats),
                                    [&](const Format& f) { return f.name == dtype; });
  if (format == std::end(kFormats)) {
    return about(file, tensor, "has the unknown dtype " + quote(dtype));
  }
  auto shape = read_shape(entry, file, tensor);
  if (!shape) {
    return shape.error();
  }
  const auto offsets = read_offsets(entry, data.size(), file, tensor);
  if (!offsets) {
    return offsets.error();
  }
  const auto [begin, end] = *offsets;
  const auto bytes = product(*shape, format->bytes);
  if (bytes != end - begin) {
    return about(file, tensor,
                 "has " + std::to_string(end - begin) + " bytes of data, expected " +
                     (bytes ? std::to_string(*bytes) : "more than any file holds") + " for shape " +
                     shape_text(*shape) + " of " + std::string(dtype));
  }
  return TensorEntry{std::string(dtype), format->dtype, std::move(*shape),
                     data.subspan(begin, end - begin)};
}

// Sorted by place, each tensor must begin where the one before it ends, and the last end with the
// file.
Status check_cover(const std::map<std::string, TensorEntry, std::less<>>& tensors,
                   std::span<const std::byte> data, const std::string& file) {
  std::vector<std::pair<std::span<const std::byte>, std::string_view>> places;
  places.reserve(tensors.size());
  for (const auto& [name, entry] : tensors) {
    places.emplace_back(entry.data, name);
  }
  std::sort(places.begin(), places.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first.data(), a.first.size()) < std::pair(b.first.data(), b.first.size());
  });
  const std::byte* expected = data.data();
  for (const auto& [place, name] : places) {
    if (place.data() != expected) {
      return about(file, name,
                   "begins at byte " + std::to_string(place.data() - data.data()) +
                       " of the data, expected " + std::to_string(expected - data.data()) +
                       ": tensors may not overlap or leave holes");
    }
    expected += place.size();
  }
  if (expected != data.data() + data.size()) {
    return Error{file + ": has " + std::to_string(data.size()) +
                 " bytes of data, but its tensors end at " +
                 std::to_string(expected - data.data())};
  }
  return Ok{};
}

// The header's length, checked against the file.
Result<uint64_t> read_length(std::span<const std::byte> file, const std::string& name) {
  if (file.size() < 8) {
    return Error{name + ": is " + std::to_string(file.size()) +
                 " bytes, too short for a safetensors file; it may be cut off"};
  }
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) {
    length = length << 8 | static_cast<uint64_t>(file[i]);
  }
  if (length > kMaxHeaderBytes || length > file.size() - 8) {
    return Error{name + ": says its header is " + std::to_string(length) +
                 " bytes, expected at most " +
                 std::to_string(std::min<uint64_t>(kMaxHeaderBytes, file.size() - 8)) +
                 "; it may be cut off, or not a safetensors file"};
  }
  return length;
}

}  // namespace

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

Result<Safetensors> Safetensors::parse(std::span<const std::byte> file, const std::string& name) {
  const auto length = read_length(file, name);
  if (!length) {
    return length.error();
  }
  dom::parser parser;
  const std::string_view header(reinterpret_cast<const char*>(file.data()) + 8, *length);
  const auto root = parse_json(parser, header, name + ": header");
  if (!root) {
    return root.error();
  }
  dom::object object;
  if (root->get(object) != simdjson::SUCCESS) {
    return Error{name + ": header is not a JSON object"};
  }
  Safetensors result;
  result.name_ = name;
  const Status read = result.read_tensors(object, file.subspan(8 + *length));
  if (!read) {
    return read.error();
  }
  return result;
}

Status Safetensors::read_tensors(dom::object header, std::span<const std::byte> data) {
  for (const auto& [key, value] : header) {
    if (key == "__metadata__") {
      continue;
    }
    auto entry = read_entry(value, data, name_, key);
    if (!entry) {
      return entry.error();
    }
    if (!tensors_.emplace(key, std::move(*entry)).second) {
      return about(name_, key, "is there twice");
    }
  }
  return check_cover(tensors_, data, name_);
}

Result<Safetensors> Safetensors::open(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat info = {};
  if (!fd.valid() || fstat(fd.get(), &info) != 0) {
    return Error{path + ": cannot be opened: " + strerror(errno)};
  }
  if (!S_ISREG(info.st_mode) || info.st_size == 0) {
    return Error{path + ": is empty or not a regular file"};
  }
  const auto size = static_cast<size_t>(info.st_size);
  void* at = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (at == MAP_FAILED) {
    return Error{path + ": cannot be mapped: " + strerror(errno)};
  }
  const std::span<const std::byte> file(static_cast<const std::byte*>(at), size);
  auto result = parse(file, path);
  if (!result) {
    munmap(at, size);
    return result;
  }
  madvise(at, size, MADV_WILLNEED);  // weights are needed soon and whole
  result->mapped_ = file;
  return result;
}

Safetensors::Safetensors(Safetensors&& other) noexcept
    : name_(std::move(other.name_)),
      mapped_(std::exchange(other.mapped_, {})),
      tensors_(std::move(other.tensors_)) {}

Safetensors& Safetensors::operator=(Safetensors&& other) noexcept {
  std::swap(name_, other.name_);
  std::swap(mapped_, other.mapped_);
  std::swap(tensors_, other.tensors_);
  return *this;
}

Safetensors::~Safetensors() {
  if (!mapped_.empty()) {
    munmap(const_cast<std::byte*>(mapped_.data()), mapped_.size());
  }
}

}  // namespace penstock::llama
