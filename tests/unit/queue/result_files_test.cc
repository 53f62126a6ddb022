#include "worker/queue/result_files.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace penstock::queue {
namespace {

int failures = 0;

int flush(int file) {
  if (failures > 0) {
    --failures;
    errno = EIO;
    return -1;
  }
  return ::fdatasync(file);
}

class ResultFilesTest : public testing::Test {
 protected:
  ~ResultFilesTest() override {
    failures = 0;
    std::filesystem::remove_all(folder_);
  }
  static std::string make_folder() {
    std::string name = std::filesystem::temp_directory_path() / "results.XXXXXX";
    return ::mkdtemp(name.data());
  }
  std::string content() const {
    std::ostringstream bytes;
    bytes << std::ifstream(files_.path(id_), std::ios::binary).rdbuf();
    return bytes.str();
  }
  ino_t inode() const {
    struct stat status {};
    EXPECT_EQ(::stat(files_.path(id_).c_str(), &status), 0);
    return status.st_ino;
  }

  const std::string folder_ = make_folder();
  const JobId id_ = JobIdMaker().make(1'763'780'000'000);
  ResultFiles files_ = *ResultFiles::open(folder_, static_cast<gid_t>(-1), flush);
};

TEST_F(ResultFilesTest, AFileWhoseFlushFailedIsCopiedToAnother) {
  ASSERT_TRUE(files_.write(id_, 0, "begun by one attempt, "));
  ASSERT_TRUE(files_.write(id_, 22, "ended"));
  const ino_t before = inode();
  failures = 1;
  EXPECT_TRUE(files_.seal(id_, 27));
  EXPECT_NE(inode(), before) << "what the flush has dropped of it is not told by another flush";
  EXPECT_EQ(content(), "begun by one attempt, ended");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(ResultFilesTest, IfTheCopyFailsTooItIsCopiedTheNextTime) {
  ASSERT_TRUE(files_.write(id_, 0, "all"));
  const ino_t before = inode();
  failures = 2;
  const Status sealed = files_.seal(id_, 3);
  ASSERT_FALSE(sealed);
  EXPECT_NE(sealed.error().message.find("flushing failed"), std::string::npos);
  EXPECT_TRUE(files_.seal(id_, 3));
  EXPECT_NE(inode(), before);
  EXPECT_EQ(content(), "all");
  const ino_t copied = inode();
  EXPECT_TRUE(files_.seal(id_, 3));
  EXPECT_EQ(inode(), copied) << "once is enough";
}

}  // namespace
}  // namespace penstock::queue
