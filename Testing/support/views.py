"""Pictures of the slice and 3D views: Slicer's own, or the same displayable managers off-screen.

Outside Slicer there is no window; the real displayable managers of slicer-core draw into an
off-screen render window.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer_world

if True:  # after the world is there
    import slicer
    import vtk


def save_slice(name: str, path: Path, size: tuple[int, int] = (380, 380)) -> None:
    """Save what the slice view ``Red``, ``Yellow`` or ``Green`` shows, fitted to its volume."""
    if slicer_world.REAL:
        widget = slicer.app.layoutManager().sliceWidget(name)
        slicer.app.processEvents()
        _write(widget.sliceView().renderWindow(), path)
        return
    logic = next(
        found for found in _collection("GetSliceLogics") if found.GetSliceNode().GetName() == name
    )
    node = logic.GetSliceNode()
    node.SetDimensions(*size, 1)
    logic.ResizeSliceNode(*size)
    offset = logic.GetSliceOffset()
    logic.FitSliceToBackground()  # as Slicer does on its own where a volume is brought on screen
    logic.SetSliceOffset(offset)
    logic.SnapSliceOffsetToIJK()
    logic.UpdatePipeline()
    window, renderer = _window(size)
    mapper = vtk.vtkImageMapper()
    mapper.SetInputConnection(logic.GetImageDataConnection())
    mapper.SetColorWindow(255)
    mapper.SetColorLevel(127.5)
    image = vtk.vtkActor2D()
    image.SetMapper(mapper)
    image.GetProperty().SetDisplayLocationToBackground()
    renderer.AddViewProp(image)
    managers = _managers(node, renderer, "vtkMRMLSegmentationsDisplayableManager2D")
    _write(window, path)
    managers.SetMRMLDisplayableNode(None)


def save_3d(path: Path, size: tuple[int, int] = (380, 380)) -> None:
    """Save what the first 3D view shows, all of it, seen from the front and a little above."""
    if slicer_world.REAL:
        view = slicer.app.layoutManager().threeDWidget(0).threeDView()
        view.resetFocalPoint()
        slicer.app.processEvents()
        _write(view.renderWindow(), path)
        return
    window, renderer = _window(size)
    renderer.SetBackground(0.756, 0.764, 0.909)
    renderer.SetBackground2(0.454, 0.470, 0.745)
    renderer.GradientBackgroundOn()
    view = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLViewNode")
    names = ("vtkMRMLSegmentationsDisplayableManager3D", "vtkMRMLModelDisplayableManager")
    managers = _managers(view, renderer, *names)
    camera = renderer.GetActiveCamera()
    camera.SetPosition(0, 1, 0.25)
    camera.SetFocalPoint(0, 0, 0)
    camera.SetViewUp(0, 0, 1)
    renderer.ResetCamera()
    _write(window, path)
    managers.SetMRMLDisplayableNode(None)


def join(paths: list[Path], path: Path) -> None:
    """Put pictures of one height side by side."""
    append = vtk.vtkImageAppend()
    for part in paths:
        reader = vtk.vtkPNGReader()
        reader.SetFileName(str(part))
        reader.Update()
        append.AddInputData(reader.GetOutput())
    writer = vtk.vtkPNGWriter()
    writer.SetFileName(str(path))
    writer.SetInputConnection(append.GetOutputPort())
    writer.SetCompressionLevel(9)
    writer.Write()


def _collection(getter: str) -> list[Any]:
    found = getattr(slicer.app.applicationLogic(), getter)()
    return [found.GetItemAsObject(i) for i in range(found.GetNumberOfItems())]


def _window(size: tuple[int, int]) -> tuple[Any, Any]:
    """An off-screen render window and its renderer."""
    window = vtk.vtkRenderWindow()
    window.SetOffScreenRendering(True)
    window.SetMultiSamples(0)
    window.SetSize(*size)
    renderer = vtk.vtkRenderer()
    window.AddRenderer(renderer)
    interactor = vtk.vtkRenderWindowInteractor()
    window.SetInteractor(interactor)
    return window, renderer


def _managers(node: Any, renderer: Any, *names: str) -> Any:
    """The displayable managers of these classes, drawing a view node into a renderer."""
    group = slicer.vtkMRMLDisplayableManagerGroup()
    group.SetRenderer(renderer)
    for name in names:
        manager = getattr(slicer, name)()
        manager.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        group.AddDisplayableManager(manager)
    group.SetMRMLDisplayableNode(node)
    return group


def _write(window: Any, path: Path) -> None:
    window.Render()
    grabber = vtk.vtkWindowToImageFilter()
    grabber.SetInput(window)
    grabber.ReadFrontBufferOff()
    writer = vtk.vtkPNGWriter()
    writer.SetFileName(str(path))
    writer.SetInputConnection(grabber.GetOutputPort())
    writer.SetCompressionLevel(9)
    writer.Write()
