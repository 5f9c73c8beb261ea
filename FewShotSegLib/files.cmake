# What of the engine is installed beside the module: all that lies in its folder.
file(GLOB_RECURSE ENGINE_PYTHON_SCRIPTS CONFIGURE_DEPENDS
  RELATIVE "${CMAKE_CURRENT_SOURCE_DIR}" "${CMAKE_CURRENT_SOURCE_DIR}/FewShotSegLib/*.py")
file(GLOB_RECURSE ENGINE_RESOURCES CONFIGURE_DEPENDS
  RELATIVE "${CMAKE_CURRENT_SOURCE_DIR}" "${CMAKE_CURRENT_SOURCE_DIR}/FewShotSegLib/Resources/*")
list(APPEND ENGINE_RESOURCES FewShotSegLib/requirements.txt FewShotSegLib/py.typed)
