#include "worker/engines/llama/cuda/cublaslt.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <glob.h>

#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "worker/engines/llama/cuda/runtime.h"

namespace penstock::llama::cuda {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // what NVIDIA recommends for Hopper

// The library's functions, by the types its header gives them.
struct Functions {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtMatmulDescCreate) desc_create;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtGetVersion) version;
  std::string file;
};

template <typename F>
bool find(void* library, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(library, name));
  return function != nullptr;
}

bool find_all(void* library, Functions& f) {
  return find(library, "cublasLtCreate", f.create) && find(library, "cublasLtDestroy", f.destroy) &&
         find(library, "cublasLtMatmulDescCreate", f.desc_create) &&
         find(library, "cublasLtMatmulDescDestroy", f.desc_destroy) &&
         find(library, "cublasLtMatmulDescSetAttribute", f.desc_set) &&
         find(library, "cublasLtMatrixLayoutCreate", f.layout_create) &&
         find(library, "cublasLtMatrixLayoutDestroy", f.layout_destroy) &&
         find(library, "cublasLtMatmulPreferenceCreate", f.preference_create) &&
         find(library, "cublasLtMatmulPreferenceDestroy", f.preference_destroy) &&
         find(library, "cublasLtMatmulPreferenceSetAttribute", f.preference_set) &&
         find(library, "cublasLtMatmulAlgoGetHeuristic", f.heuristic) &&
         find(library, "cublasLtMatmul", f.matmul) &&
         find(library, "cublasLtGetVersion", f.version);
}

// The major version is part of the name, so that what answers has the interface of our header.
std::vector<std::string> places() {
  const std::string soname = "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR);
  std::vector<std::string> names = {soname, "/usr/local/cuda/lib64/" + soname};
  for (const char* const packages :
       {"/usr/local/lib/python3*/dist-packages", "/usr/local/lib/python3*/site-packages",
        "/usr/lib/python3*/dist-packages", "/opt/*/lib/python3*/site-packages"}) {
    glob_t found{};
    const std::string pattern = packages + ("/nvidia/cu*/lib/" + soname);
    if (::glob(pattern.c_str(), 0, nullptr, &found) == 0) {
      names.insert(names.end(), found.gl_pathv, found.gl_pathv + found.gl_pathc);
    }
    ::globfree(&found);
  }
  return names;
}

Result<Functions> load_library() {
  std::string tried;
  for (const std::string& name : places()) {
    // Never closed: it keeps threads and device code of its own until the process ends.
    if (void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL); library != nullptr) {
      Functions functions{};
      if (find_all(library, functions)) {
        Dl_info info{};
        const bool known = dladdr(reinterpret_cast<void*>(functions.matmul), &info) != 0;
        functions.file = known ? info.dli_fname : name;
        return functions;
      }
      return Error{name + " lacks functions of cublasLt.h"};
    }
    tried += (tried.empty() ? "" : " nor as ") + name;
  }
  return Error{"cuBLASLt was not found as " + tried + "; LD_LIBRARY_PATH may name its folder"};
}

cudaDataType_t type_of(DType dtype) {
  return dtype == DType::kF32 ? CUDA_R_32F : dtype == DType::kF16 ? CUDA_R_16F : CUDA_R_16BF;
}

// How one shape is multiplied. Everything is column-major to the library: our row-major weight
// [outputs, cols] is its cols x outputs, so out^T = weight * x^T is a transposed times a plain one.
struct Product {
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t weight = nullptr;
  cublasLtMatrixLayout_t x = nullptr;
  cublasLtMatrixLayout_t out = nullptr;
  cublasLtMatmulAlgo_t algo{};
  bool found = false;
};

// The largest power of two up to 256 that divides every row's place.
uint32_t alignment_of(int64_t row_bytes) {
  uint32_t alignment = 256;
  while (row_bytes % alignment != 0) {
    alignment /= 2;
  }
  return alignment;
}

class LoadedCublasLt final : public CublasLt {
 public:
  LoadedCublasLt(const Functions& functions, cublasLtHandle_t handle, DeviceMemory workspace)
      : f_(functions),
        handle_(handle),
        workspace_(std::move(workspace)),
        name_("cuBLASLt " + std::to_string(f_.version()) + ", " + f_.file) {}
  LoadedCublasLt(const LoadedCublasLt&) = delete;
  LoadedCublasLt& operator=(const LoadedCublasLt&) = delete;
  ~LoadedCublasLt() override {
    for (auto& [shape, product] : products_) {
      forget(product);
    }
    f_.destroy(handle_);
  }

  const char* name() const override { return name_.c_str(); }

  bool can(const Matrix& weight, int64_t rows) override { return product(weight, rows).found; }

  Status multiply(CUstream_st* stream, float* out, const void* x, const Matrix& weight,
                  int64_t rows, bool add) override {
    const Product& p = product(weight, rows);
    const float one = 1;
    const float beta = add ? 1 : 0;
    const cublasStatus_t status =
        f_.matmul(handle_, p.desc, &one, weight.data, p.weight, x, p.x, &beta, out, p.out, out,
                  p.out, &p.algo, workspace_.get(), kWorkspaceBytes, stream);
    if (status != CUBLAS_STATUS_SUCCESS) {
      return Error{"cuBLASLt failed with status " + std::to_string(status) + " on a product of " +
                   std::to_string(rows) + " rows with [" + std::to_string(weight.rows) + ", " +
                   std::to_string(weight.cols) + "]"};
    }
    return Ok{};
  }

 private:
  using Shape = std::tuple<DType, int64_t, int64_t, int64_t>;

  Product& product(const Matrix& weight, int64_t rows) {
    Product& p = products_[{weight.dtype, weight.rows, weight.cols, rows}];
    if (p.desc == nullptr) {
      p.found = describe(p, weight, rows) && choose(p, weight);
    }
    return p;
  }

  bool describe(Product& p, const Matrix& weight, int64_t rows) {
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cudaDataType_t type = type_of(weight.dtype);
    return f_.desc_create(&p.desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
           f_.desc_set(p.desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed) ==
               CUBLAS_STATUS_SUCCESS &&
           f_.layout_create(&p.weight, type, weight.cols, weight.rows, weight.cols) ==
               CUBLAS_STATUS_SUCCESS &&
           f_.layout_create(&p.x, type, weight.cols, rows, weight.cols) == CUBLAS_STATUS_SUCCESS &&
           f_.layout_create(&p.out, CUDA_R_32F, weight.rows, rows, weight.rows) ==
               CUBLAS_STATUS_SUCCESS;
  }

  bool choose(Product& p, const Matrix& weight) {
    cublasLtMatmulPreference_t preference = nullptr;
    if (f_.preference_create(&preference) != CUBLAS_STATUS_SUCCESS) {
      return false;
    }
    // Our buffers begin at multiples of 256 bytes; fused weights, and rows, at multiples of a row.
    const uint32_t in = alignment_of(weight.cols * bytes_of(weight.dtype));
    const uint32_t out = alignment_of(weight.rows * bytes_of(DType::kF32));
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t what, const auto& value) {
      return f_.preference_set(preference, what, &value, sizeof value) == CUBLAS_STATUS_SUCCESS;
    };
    cublasLtMatmulHeuristicResult_t best{};
    int found = 0;
    const bool asked = set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes) &&
                       set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, in) &&
                       set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, in) &&
                       set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out) &&
                       set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out) &&
                       f_.heuristic(handle_, p.desc, p.weight, p.x, p.out, p.out, preference, 1,
                                    &best, &found) == CUBLAS_STATUS_SUCCESS;
    f_.preference_destroy(preference);
    p.algo = best.algo;
    return asked && found == 1 && best.state == CUBLAS_STATUS_SUCCESS;
  }

  void forget(Product& p) {
    for (cublasLtMatrixLayout_t layout : {p.weight, p.x, p.out}) {
      if (layout != nullptr) {
        f_.layout_destroy(layout);
      }
    }
    if (p.desc != nullptr) {
      f_.desc_destroy(p.desc);
    }
  }

  const Functions f_;
  const cublasLtHandle_t handle_;
  const DeviceMemory workspace_;
  const std::string name_;
  std::map<Shape, Product> products_;  // at most one for each weight's shape and count of rows
};

}  // namespace

Result<std::unique_ptr<CublasLt>> open_cublaslt() {
  const auto functions = load_library();
  if (!functions) {
    return functions.error();
  }
  auto workspace = allocate_on_device(kWorkspaceBytes);
  if (!workspace) {
    return workspace.error();
  }
  cublasLtHandle_t handle = nullptr;
  if (const cublasStatus_t status = functions->create(&handle); status != CUBLAS_STATUS_SUCCESS) {
    return Error{"cuBLASLt could not start, status " + std::to_string(status)};
  }
  return std::unique_ptr<CublasLt>(
      std::make_unique<LoadedCublasLt>(*functions, handle, std::move(*workspace)));
}

}  // namespace penstock::llama::cuda
