# cmake -DOUT=… -DVERSION=… -DDIRECTORY=… -DFILES=a;b… -P kernels_id.cmake: a source file that defines kernels_id(), a hash
# over the sources that the kernels and their host side share.
set(all ${VERSION})
foreach(file ${FILES})
  file(SHA256 ${DIRECTORY}/${file} hash)
  string(APPEND all "\n${file} ${hash}")
endforeach()
string(SHA256 id "${all}")
file(CONFIGURE OUTPUT ${OUT} CONTENT "#include \"device/cuda/host/kernel_file.h\"

namespace steelyard::cuda {
std::string_view kernels_id() { return \"${id}\"; }
}  // namespace steelyard::cuda
" @ONLY)
