#include "worker/engines/process/result_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

namespace penstock::process {
namespace {

namespace fs = std::filesystem;

// A job's folder, and one outside of it.
class ResultFileTest : public ::testing::Test {
 protected:
  ResultFileTest() {
    std::string path = "/tmp/penstock-result-XXXXXX";
    home_ = ::mkdtemp(path.data());
    job_ = home_ + "/job";
    fs::create_directories(job_ + "/inner");
    put(job_ + "/inner/good.png", "picture");
    put(home_ + "/secret", "secret");
    folder_.reset(::open(job_.c_str(), O_RDONLY | O_DIRECTORY));
  }
  ~ResultFileTest() override { fs::remove_all(home_); }

  static void put(const std::string& path, const std::string& text) { std::ofstream(path) << text; }
  Result<ResultFile> open(std::string_view name, int64_t most = 1000) {
    return ResultFile::open(folder_.get(), job_, name, most);
  }
  std::string why_not(std::string_view name, int64_t most = 1000) {
    const auto file = open(name, most);
    return file ? "" : file.error().message;
  }

  std::string home_;
  std::string job_;
  Fd folder_;
};

TEST_F(ResultFileTest, AFileInTheFolderIsReadByEitherName) {
  for (const std::string& name : {std::string("inner/good.png"), job_ + "/inner/good.png"}) {
    auto file = open(name);
    ASSERT_TRUE(file) << file.error().message;
    EXPECT_EQ(file->size(), 7);
    std::string first;
    std::string rest;
    EXPECT_TRUE(file->read(4, first));
    EXPECT_TRUE(file->read(100, rest));
    EXPECT_EQ(first + rest, "picture");
    EXPECT_EQ(file->unread(), 0);
  }
}

TEST_F(ResultFileTest, NothingOutsideAndNothingButAPlainFileIsOpened) {
  fs::create_symlink(home_ + "/secret", job_ + "/link");
  fs::create_directory_symlink(home_, job_ + "/link-dir");
  fs::create_symlink("inner/good.png", job_ + "/link-inside");
  fs::create_hard_link(home_ + "/secret", job_ + "/hard");
  ASSERT_EQ(::mkfifo((job_ + "/fifo").c_str(), 0600), 0);
  for (const std::string& name :
       {std::string("link"), std::string("link-dir/secret"), std::string("link-inside"),
        std::string("hard"), std::string("fifo"), std::string("inner"), std::string("."),
        std::string(""), std::string("nul\0x", 5), std::string("missing"), std::string("../secret"),
        std::string("inner/../../secret"), home_ + "/secret", std::string("/etc/passwd"),
        job_ + "/../secret", job_ + "/"}) {
    EXPECT_NE(why_not(name).find("outside"), std::string::npos) << name;
  }
}

TEST_F(ResultFileTest, OneOverTheBoundIsNotOpened) {
  EXPECT_EQ(why_not("inner/good.png", 7), "");
  EXPECT_EQ(why_not("inner/good.png", 6), "the file \"inner/good.png\" has 7 bytes; the most is 6");
}

TEST_F(ResultFileTest, OneThatBecomesShorterIsNotedAsSuch) {
  auto file = open("inner/good.png");
  ASSERT_TRUE(file);
  fs::resize_file(job_ + "/inner/good.png", 2);
  std::string bytes;
  EXPECT_TRUE(file->read(100, bytes));
  EXPECT_EQ(bytes, "pi");
  const Status rest = file->read(100, bytes);
  ASSERT_FALSE(rest);
  EXPECT_EQ(rest.error().message, "the result's file became shorter while it was sent");
}

}  // namespace
}  // namespace penstock::process
