#include "base/temporary_folder.h"

#include <stdlib.h>

#include <system_error>

#include "base/error.h"

namespace steelyard {

TemporaryFolder::TemporaryFolder(const std::string& purpose) {
  std::error_code error;
  const std::filesystem::path parent = std::filesystem::temp_directory_path(error);
  std::string name = (parent / ("steelyard-" + purpose + "-XXXXXX")).string();
  if (error || !mkdtemp(name.data()))
    throw_error(ErrorKind::io, "no folder for the files can be made; name another in $TMPDIR");
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace steelyard
